//! Hyperscan on the bench's text, in the modes that are the nearest to masking a stream, beside the masker.
//!
//! Its stream mode tells where matches start (start of match) but decides nothing about overlaps and replaces nothing.

#[path = "../../mask/corpus.rs"]
mod corpus;
#[path = "../../mask/frozen.rs"]
mod frozen;

use std::{
    ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void},
    hint::black_box,
    ptr::{null, null_mut},
    sync::Arc,
    time::Instant,
};

use countersign::{
    detect::Catalog,
    mask::{Masker, Plan, mask},
};
use libloading::{Library, Symbol};

use frozen::FROZEN;

const BYTES: usize = 1 << 20;
const ROUNDS: usize = 9;

const DOTALL: c_uint = 2;
const SOM_LEFTMOST: c_uint = 256;
const MODE_BLOCK: c_uint = 1;
const MODE_STREAM_SOM_LARGE: c_uint = 2 | (1 << 24);

type OnMatch = extern "C" fn(c_uint, c_ulonglong, c_ulonglong, c_uint, *mut c_void) -> c_int;
type Compile = unsafe extern "C" fn(
    *const *const c_char,
    *const c_uint,
    *const c_uint,
    c_uint,
    c_uint,
    *const c_void,
    *mut *mut c_void,
    *mut *mut Fault,
) -> c_int;
type AllocScratch = unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int;
type Scan = unsafe extern "C" fn(
    *mut c_void,
    *const u8,
    c_uint,
    c_uint,
    *mut c_void,
    OnMatch,
    *mut c_void,
) -> c_int;
type Open = unsafe extern "C" fn(*mut c_void, c_uint, *mut *mut c_void) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void, *mut c_void, OnMatch, *mut c_void) -> c_int;

#[repr(C)]
struct Fault {
    message: *const c_char,
    expression: c_int,
}

extern "C" fn on_match(
    _: c_uint,
    _: c_ulonglong,
    _: c_ulonglong,
    _: c_uint,
    count: *mut c_void,
) -> c_int {
    // SAFETY: it is the counter that the calls below pass in, alive for as long as they last.
    unsafe { *count.cast::<u64>() += 1 };
    0
}

type Row<'a> = (&'a str, Box<dyn Fn(&str) -> usize + 'a>);

/// A compiled database, and room to scan with it.
struct Database<'l> {
    library: &'l Library,
    database: *mut c_void,
    scratch: *mut c_void,
}

impl<'l> Database<'l> {
    fn new(library: &'l Library, shapes: &[CString], mode: c_uint) -> Self {
        let pointers: Vec<*const c_char> = shapes.iter().map(|shape| shape.as_ptr()).collect();
        let flags = vec![DOTALL | SOM_LEFTMOST; shapes.len()];
        let ids: Vec<c_uint> = (0..shapes.len() as c_uint).collect();
        let (mut database, mut scratch, mut fault) = (null_mut(), null_mut(), null_mut());
        // SAFETY: the signatures are those of hs_compile.h and hs_runtime.h (5.4), and the arrays are as long as said.
        unsafe {
            let compile: Symbol<'_, Compile> = library
                .get(b"hs_compile_multi")
                .expect("a function of Hyperscan");
            let code = compile(
                pointers.as_ptr(),
                flags.as_ptr(),
                ids.as_ptr(),
                shapes.len() as c_uint,
                mode,
                null(),
                &mut database,
                &mut fault,
            );
            assert_eq!(
                code,
                0,
                "Hyperscan refuses shape {}",
                if fault.is_null() {
                    -1
                } else {
                    (*fault).expression
                }
            );
            let alloc: Symbol<'_, AllocScratch> = library
                .get(b"hs_alloc_scratch")
                .expect("a function of Hyperscan");
            assert_eq!(alloc(database, &mut scratch), 0);
        }
        Self {
            library,
            database,
            scratch,
        }
    }

    fn whole(&self, text: &str) -> u64 {
        let mut count = 0u64;
        // SAFETY: as above; the text and the counter outlive the call.
        unsafe {
            let scan: Symbol<'_, Scan> = self
                .library
                .get(b"hs_scan")
                .expect("a function of Hyperscan");
            let count: *mut u64 = &mut count;
            scan(
                self.database,
                text.as_ptr(),
                text.len() as c_uint,
                0,
                self.scratch,
                on_match,
                count.cast(),
            );
        }
        count
    }

    fn stream(&self, text: &str, piece: usize) -> u64 {
        let mut count = 0u64;
        // SAFETY: as above; the stream is closed before anything it uses is gone.
        unsafe {
            let open: Symbol<'_, Open> = self
                .library
                .get(b"hs_open_stream")
                .expect("a function of Hyperscan");
            let scan: Symbol<'_, Scan> = self
                .library
                .get(b"hs_scan_stream")
                .expect("a function of Hyperscan");
            let close: Symbol<'_, Close> = self
                .library
                .get(b"hs_close_stream")
                .expect("a function of Hyperscan");
            let (scan, count) = (*scan, (&raw mut count).cast());
            let mut stream = null_mut();
            assert_eq!(open(self.database, 0, &mut stream), 0);
            for piece in text.as_bytes().chunks(piece) {
                scan(
                    stream,
                    piece.as_ptr(),
                    piece.len() as c_uint,
                    0,
                    self.scratch,
                    on_match,
                    count,
                );
            }
            close(stream, self.scratch, on_match, count);
        }
        count
    }
}

fn main() {
    // SAFETY: Debian's library runs nothing of ours when it is loaded.
    let library = match unsafe { Library::new("libhs.so.5") } {
        Ok(library) => library,
        Err(_) => {
            println!(
                "Hyperscan is not installed here (Debian: libhyperscan5); nothing is measured"
            );
            return;
        }
    };
    let catalog = Catalog::builtin().expect("the built-in detectors compile");
    let frozen = FROZEN.iter().map(|&name| name.into()).collect();
    let scanner = catalog.scanner(&frozen).expect("they compile together");
    let shapes: Vec<CString> = scanner
        .shapes()
        .iter()
        .map(|shape| CString::new(plain(shape)).expect("no shape has a NUL"))
        .collect();
    let plan = Arc::new(Plan::new(scanner, &Default::default()));
    let block = Database::new(&library, &shapes, MODE_BLOCK);
    let streaming = Database::new(&library, &shapes, MODE_STREAM_SOM_LARGE);
    for (name, share) in [("clean", 0.0), ("1 % values", 0.01)] {
        let text = corpus::chats(1, BYTES, share);
        let rows: [Row<'_>; 6] = [
            (
                "Hyperscan, whole",
                Box::new(|text| block.whole(text) as usize),
            ),
            ("masker, whole", Box::new(|text| mask(&plan, text).0.len())),
            (
                "Hyperscan, 16 B",
                Box::new(|text| streaming.stream(text, 16) as usize),
            ),
            ("masker, 16 B", Box::new(|text| stream(&plan, text, 16))),
            (
                "Hyperscan, 4 B",
                Box::new(|text| streaming.stream(text, 4) as usize),
            ),
            ("masker, 4 B", Box::new(|text| stream(&plan, text, 4))),
        ];
        let mut fastest = [0.0; 6];
        for document in text.split_inclusive('\n') {
            let mut best = [f64::INFINITY; 6];
            for _ in 0..ROUNDS {
                for ((_, run), best) in rows.iter().zip(&mut best) {
                    let start = Instant::now();
                    black_box(run(black_box(document)));
                    *best = best.min(start.elapsed().as_secs_f64());
                }
            }
            fastest
                .iter_mut()
                .zip(best)
                .for_each(|(all, one)| *all += one);
        }
        println!(
            "{name}, start of match told:{:>12}{:>22}",
            "MB/s", "of Hyperscan"
        );
        for (i, ((row, _), seconds)) in rows.iter().zip(fastest).enumerate() {
            println!(
                "{row:<28}{:>14.1}{:>22.2}",
                text.len() as f64 / 1e6 / seconds,
                fastest[i & !1] / seconds
            );
        }
    }
}

/// Hyperscan knows neither `(?-u:`, which switches off what it does not do, nor `(?:\b)`.
fn plain(shape: &str) -> String {
    shape.replace("(?-u:\\b)", "\\b").replace("(?-u:", "(?:")
}

fn stream(plan: &Arc<Plan>, text: &str, piece: usize) -> usize {
    let mut masker = Masker::new(plan.clone());
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let start = at;
        at = (at + piece).min(text.len());
        while !text.is_char_boundary(at) {
            at += 1;
        }
        masker.push(&text[start..at], &mut out);
    }
    masker.finish(&mut out);
    out.len()
}
