//! What comes from whoever finds the port.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

const PATH: &str = "/api/v1/approvals/a1/decision";

#[tokio::test]
async fn a_token_comes_once_and_in_one_place() {
    let api = Api::of(World::new()).await;
    let list = || api.request(Method::GET, "/api/v1/approvals");
    let cases = [
        (list(), 401, "token_missing"),
        (
            list().header("authorization", "Basic Ym9iOmJvYg=="),
            400,
            "token_not_bearer",
        ),
        (
            list().header("authorization", "Bearer"),
            400,
            "token_not_bearer",
        ),
        (list().bearer_auth("nobody"), 401, "token_bad_signature"),
        (
            list().bearer_auth("bob").bearer_auth("bob"),
            400,
            "token_repeated",
        ),
        (
            list().bearer_auth("bob, Bearer root"),
            400,
            "token_repeated",
        ),
        (list().header("x-api-key", "bob"), 401, "token_missing"),
        (list().header("cookie", "token=bob"), 401, "token_missing"),
    ];
    for (request, status, code) in cases {
        let told = tell(request).await;
        assert_eq!((told.status, told.code()), (status, code));
    }
    let told = api.get("/api/v1/approvals?access_token=bob", "").await;
    assert_eq!(told.code(), "token_missing");
    api.world.keys_away.store(true, Ordering::Relaxed);
    let told = api.get("/api/v1/approvals", "bob").await;
    assert_eq!((told.status, told.code()), (503, "issuer_unavailable"));
}

#[tokio::test]
async fn a_body_is_small_json_of_what_is_known() {
    let api = Api::of(World::new()).await;
    api.world.ask("a1", "alice");
    let good = api.world.decision("a1", Given::Approve).to_string();
    let post = |kind: &str, body: String| {
        let request = api
            .request(Method::POST, PATH)
            .bearer_auth("bob")
            .body(body);
        match kind {
            "" => request,
            kind => request.header("content-type", kind),
        }
    };
    let json = "application/json";
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    let long = format!("{:1$}{good}", "", 16 * 1024);
    let cases = [
        (post("", good.clone()), 415, "not_json"),
        (post("text/json", good.clone()), 415, "not_json"),
        (
            post("application/json, text/plain", good.clone()),
            415,
            "not_json",
        ),
        (
            post("application/x-www-form-urlencoded", good.clone()),
            415,
            "not_json",
        ),
        (
            post(json, good.clone()).header("content-type", json),
            415,
            "not_json",
        ),
        (
            post(json, good.clone()).header("content-encoding", "gzip"),
            415,
            "not_json",
        ),
        (post(json, long), 413, "too_large"),
        (post(json, String::new()), 400, "bad_body"),
        (post(json, "null".into()), 400, "bad_body"),
        (post(json, "[]".into()), 400, "bad_body"),
        (post(json, "{}".into()), 400, "bad_body"),
        (post(json, format!("{good}{good}")), 400, "bad_body"),
        (post(json, with("\"also\": 1")), 400, "bad_body"),
        (post(json, with("\"decision\": \"deny\"")), 400, "bad_body"),
        (
            post(json, good.replace("approve", "Approve")),
            400,
            "bad_body",
        ),
        (
            post(json, good.replace("looked at it", "\\ud800")),
            400,
            "bad_body",
        ),
        (
            post(json, good.replace("looked at it", &"é".repeat(1_001))),
            400,
            "bad_body",
        ),
        (post(json, "[".repeat(10_000)), 400, "bad_body"),
    ];
    for (n, (request, status, code)) in cases.into_iter().enumerate() {
        let told = tell(request).await;
        assert_eq!((told.status, told.code()), (status, code), "case {n}");
        assert!(!told.body.to_string().contains("looked"), "case {n}");
    }
    let short = good.replace("looked at it", &"é".repeat(1_000));
    let told = tell(post("Application/JSON; charset=utf-8", short)).await;
    assert_eq!(told.status, 200, "{told:?}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_kept() {
    let api = Api::of(World::new()).await;
    api.world.ask("a1", "alice");
    let address = api.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer bob\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("400\r\n{:1$}\r\n", "", 1024);
    for _ in 0..17 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    // Its end has not come, and the answer does not wait for it.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn odd_paths_queries_and_methods_are_refused_in_the_same_shape() {
    let api = Api::of(World::new()).await;
    api.world.ask("a1", "alice");
    let cases = [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/v1", 404, "not_found"),
        ("GET", "/api/v1/approvals/", 404, "not_found"),
        ("GET", "/api/v1/approvals/a1/", 404, "not_found"),
        ("GET", "/api/v1/approvals/a1%2f..", 404, "not_found"),
        ("GET", "/api/v1/approvals/%ff", 404, "not_found"),
        ("GET", "/api/v1/approvals/a1%00", 404, "not_found"),
        ("GET", "/api/v1/approvals/%3Cscript%3E", 404, "not_found"),
        ("GET", "/api/v1/approvals?limit=0", 400, "bad_query"),
        ("GET", "/api/v1/approvals?limit=1001", 400, "bad_query"),
        ("GET", "/api/v1/approvals?limit=-1", 400, "bad_query"),
        ("GET", "/api/v1/approvals?limit=", 400, "bad_query"),
        ("GET", "/api/v1/approvals?limit=5&limit=6", 400, "bad_query"),
        ("GET", "/api/v1/approvals?state=Pending", 400, "bad_query"),
        ("GET", "/api/v1/approvals?cursor=x", 400, "bad_query"),
        ("GET", "/api/v1/approvals?cursor=-1.a", 400, "bad_query"),
        ("GET", "/api/v1/approvals?cursor=1.a%20b", 400, "bad_query"),
        ("GET", "/api/v1/approvals?sort=asc", 400, "bad_query"),
        ("POST", "/api/v1/approvals", 405, "method_not_allowed"),
        ("PUT", "/api/v1/approvals/a1", 405, "method_not_allowed"),
        ("GET", PATH, 405, "method_not_allowed"),
        ("TRACE", "/api/v1/openapi.json", 405, "method_not_allowed"),
        ("OPTIONS", "/api/v1/approvals/a1", 405, "method_not_allowed"),
    ];
    for (method, path, status, code) in cases {
        let told = api.ask(method, path, "bob", None).await;
        assert_eq!(
            (told.status, told.code()),
            (status, code),
            "{method} {path}"
        );
        assert_eq!(
            status == 405,
            told.headers.contains_key("allow"),
            "{method} {path}"
        );
        assert!(!told.body.to_string().contains("script"));
    }
    let told = api.ask("PUT", "/api/v1/approvals/a1", "bob", None).await;
    assert_eq!(told.header("allow"), "GET,HEAD,DELETE");
    // Any cursor of the right form is a place, whether anything stands there or not.
    let told = api
        .get("/api/v1/approvals?cursor=9999999999999999999.a", "bob")
        .await;
    assert_eq!(told.body["approvals"].as_array().unwrap().len(), 1);
    let told = api
        .get(
            "/api/v1/approvals?connection=%27%20OR%201%3D1--&caller=%ff",
            "bob",
        )
        .await;
    assert_eq!((told.status, &told.body["approvals"]), (200, &json!([])));
}
