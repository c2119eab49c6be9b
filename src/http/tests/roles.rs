//! Every endpoint for each role and for none.

use super::*;

/// What each of them gets: nobody, somebody without a role, the caller, one who is asked but has no role, approver, auditor,
/// administrator.
const WHO: [&str; 7] = ["", "mallory", "alice", "dora", "bob", "audrey", "root"];

#[tokio::test]
async fn every_endpoint_for_every_role() {
    let table: [(&str, &str, [u16; 7]); 11] = [
        (
            "GET",
            "/api/v1/approvals",
            [401, 403, 403, 403, 200, 200, 200],
        ),
        (
            "GET",
            "/api/v1/approvals/ID",
            [401, 404, 200, 404, 200, 200, 200],
        ),
        (
            "POST",
            "/api/v1/approvals/ID/decision",
            [401, 403, 403, 200, 200, 403, 403],
        ),
        (
            "DELETE",
            "/api/v1/approvals/ID",
            [401, 404, 200, 404, 403, 403, 200],
        ),
        (
            "GET",
            "/api/v1/openapi.json",
            [401, 403, 403, 403, 200, 200, 200],
        ),
        (
            "DELETE",
            "/api/v1/grants/g1",
            [401, 403, 403, 403, 403, 403, 200],
        ),
        // Who may not read is told before it is looked what they sent.
        (
            "POST",
            "/oauth2/introspect",
            [401, 403, 403, 403, 400, 400, 400],
        ),
        ("GET", "/healthz", [200; 7]),
        ("GET", "/readyz", [200; 7]),
        ("GET", "/metrics", [200; 7]),
        (
            "GET",
            "/api/v1/approvals/unknown",
            [401, 404, 404, 404, 404, 404, 404],
        ),
    ];
    for (method, path, expected) in table {
        for (who, expected) in WHO.into_iter().zip(expected) {
            // A world of their own each, so that none finds what the one before left.
            let api = Api::of(World::new()).await;
            api.world.ask("a1", "alice");
            let body = (method == "POST").then(|| api.world.decision("a1", Given::Approve));
            let path = path.replace("ID", "a1");
            let told = api.ask(method, &path, who, body.as_ref()).await;
            assert_eq!(
                told.status, expected,
                "{method} {path} as `{who}`: {told:?}"
            );
            let over = api.world.known("a1").state != crate::approval::State::Pending;
            let acted = path.contains("/approvals/")
                && matches!(method, "POST" | "DELETE")
                && expected == 200;
            assert_eq!(over, acted, "{method} {path} as `{who}`");
        }
    }
}

#[tokio::test]
async fn the_table_above_leaves_no_operation_out() {
    let document = document();
    let mut operations: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    operations.sort();
    assert_eq!(
        operations,
        [
            "DELETE /api/v1/approvals/{id}",
            "DELETE /api/v1/grants/{id}",
            "GET /api/v1/approvals",
            "GET /api/v1/approvals/{id}",
            "GET /api/v1/openapi.json",
            "POST /api/v1/approvals/{id}/decision",
        ]
    );
}

/// Answers are held against the schemas that the document gives for them, which allow nothing that they do not name.
#[tokio::test]
async fn answers_are_what_the_document_says() {
    let api = Api::of(World::new()).await;
    api.world
        .ask_for("a1", "alice", "openai", &[("security", 1), ("legal", 1)]);
    api.decide("a1", "bob", Given::Approve).await;
    let document = api.get("/api/v1/openapi.json", "root").await.body;
    assert_eq!(document, super::document());
    let reads = [
        ("/api/v1/approvals", "bob", "List"),
        ("/api/v1/approvals?limit=1", "bob", "List"),
        ("/api/v1/approvals/a1", "bob", "Shown"),
        ("/api/v1/approvals/a1", "bob", "Full"),
        ("/api/v1/approvals/a1", "alice", "Status"),
        ("/api/v1/approvals/a2", "alice", "Failure"),
    ];
    for (path, who, name) in reads {
        let mut schema = document["components"]["schemas"][name].clone();
        // References go to the document's root.
        schema["components"] = document["components"].clone();
        let told = api.get(path, who).await;
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<_> = validator
            .iter_errors(&told.body)
            .map(|error| error.to_string())
            .collect();
        assert!(
            faults.is_empty(),
            "{path} as {who}: {faults:?}\n{}",
            told.body
        );
    }
    let parameters = &document["paths"]["/api/v1/approvals"]["get"]["parameters"];
    let name = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
    let named: BTreeSet<_> = parameters.as_array().unwrap().iter().map(name).collect();
    let known = ["state", "connection", "caller", "limit", "cursor"];
    assert_eq!(named, known.map(str::to_owned).into());
    assert!(!parameters.to_string().contains("null"), "{parameters:#}");
}
