//! For every order of messages, every cut and every mood of those who are asked, what the bench checks holds.
//!
//! `./dev fuzz exchanges` plays as many scripts as one likes: proptest reads PROPTEST_CASES.

use proptest::{collection::vec, prelude::*};

use super::script::play;

/// Scripts are short and cheap: eight times what proptest plays by itself, however many it is told to.
fn many() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.saturating_mul(8),
        ..usual
    }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn any_script_keeps_every_promise(bytes in vec(any::<u8>(), 0..400)) {
        play(&bytes);
    }
}
