//! The operations of the API, as one table: the router and the OpenAPI document are both made of it, and the schemas from the types
//! that travel, so neither can tell of what the other does not have.

use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    api::{self, Caller, Shared},
    list, oauth,
    refused::Refused,
    wire::{Decide, Failure, List, Revocation, Shown, Status},
};

/// One operation.
struct Operation {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    handler: MethodRouter<Shared>,
    /// Schema of the query.
    query: Option<Schema>,
    /// Schema of the body.
    body: Option<Schema>,
    /// Schema of the answer, where it is a 200.
    answer: Schema,
    /// Statuses of refusals.
    refusals: &'static [u16],
}

type Schema = fn(&mut SchemaGenerator) -> Value;

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// Whatever a JSON object may be.
fn object(_: &mut SchemaGenerator) -> Value {
    json!({"type": "object"})
}

const APPROVAL: &str = "/api/v1/approvals/{id}";

fn operations() -> Vec<Operation> {
    vec![
        Operation {
            path: "/api/v1/approvals",
            method: "get",
            id: "list_approvals",
            summary: "Approvals, newest first. For approvers, auditors and administrators.",
            handler: get(api::approvals),
            query: Some(schema::<list::Query>),
            body: None,
            answer: schema::<List>,
            refusals: &[400, 401, 403, 503],
        },
        Operation {
            path: APPROVAL,
            method: "get",
            id: "show_approval",
            summary: "One approval: all of it for approvers, auditors and administrators, which is put on record; for its caller \
                      where it stands; for others nothing.",
            handler: get(api::approval),
            query: None,
            body: None,
            answer: schema::<Shown>,
            refusals: &[400, 401, 404, 503],
        },
        Operation {
            path: APPROVAL,
            method: "delete",
            id: "cancel_approval",
            summary: "Ends an approval that is pending, or approved and not used. For its caller and administrators.",
            handler: delete(api::cancel),
            query: None,
            body: None,
            answer: schema::<Status>,
            refusals: &[400, 401, 403, 404, 409, 503],
        },
        Operation {
            path: "/api/v1/approvals/{id}/decision",
            method: "post",
            id: "decide_approval",
            summary: "Decides. Whether somebody may is the approval's own rule; they must have signed in a moment ago (RFC 9470).",
            handler: post(api::decide),
            query: None,
            body: Some(schema::<Decide>),
            answer: schema::<Status>,
            refusals: &[400, 401, 403, 404, 408, 409, 413, 415, 503],
        },
        Operation {
            path: "/api/v1/grants/{id}",
            method: "delete",
            id: "revoke_grant",
            summary: "Revokes a grant by its id, whoever holds it. For administrators.",
            handler: delete(oauth::revoke_by_id),
            query: None,
            body: None,
            answer: schema::<Revocation>,
            refusals: &[400, 401, 403, 404, 503],
        },
        Operation {
            path: "/api/v1/openapi.json",
            method: "get",
            id: "openapi",
            summary: "This document. For approvers, auditors and administrators.",
            handler: get(show),
            query: None,
            body: None,
            answer: object,
            refusals: &[400, 401, 403, 503],
        },
    ]
}

/// Everything below `/api`.
pub(super) fn router() -> axum::Router<Shared> {
    operations()
        .into_iter()
        .fold(axum::Router::new(), |router, operation| {
            router.route(operation.path, operation.handler)
        })
}

async fn show(caller: Caller) -> Result<axum::Json<Value>, Refused> {
    match caller.reads() {
        true => Ok(axum::Json(document())),
        false => Err(Refused::forbidden()),
    }
}

/// The OpenAPI 3.1 document.
#[must_use]
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let failure = schema::<Failure>(&mut generator);
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            let described = described(&operation, &failure, &mut generator);
            path.insert(operation.method.to_owned(), described);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Countersign",
            "summary": "Approvals: a human countersigns a request",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

fn described(operation: &Operation, failure: &Value, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    if operation.path.contains("{id}") {
        let schema = json!({"type": "string", "pattern": "^[A-Za-z0-9-]+$", "minLength": 1, "maxLength": 64});
        parameters.push(json!({"name": "id", "in": "path", "required": true, "schema": schema}));
    }
    if let Some(query) = operation.query {
        parameters.extend(query_parameters(&query(generator), generator));
    }
    let answer = (operation.answer)(generator);
    let mut responses = Map::new();
    responses.insert("200".to_owned(), response("Done", &answer));
    for status in operation.refusals {
        let mut refused = response("Refused: `error.code` says why", failure);
        if *status == 401
            && let Some(refused) = refused.as_object_mut()
        {
            let header = json!({"required": true, "schema": {"type": "string"}});
            refused.insert("headers".to_owned(), json!({"WWW-Authenticate": header}));
        }
        responses.insert(status.to_string(), refused);
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let (Some(body), Some(described)) = (operation.body, described.as_object_mut()) {
        let schema = body(generator);
        let body = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        described.insert("requestBody".to_owned(), body);
    }
    described
}

fn response(description: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

/// The members of the query's schema as parameters. None of them is required.
fn query_parameters(query: &Value, generator: &mut SchemaGenerator) -> Vec<Value> {
    let name = query["$ref"].as_str().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    // It is nothing that travels as JSON, so it has no place among the schemas.
    let Some(object) = generator.definitions_mut().remove(name) else {
        return Vec::new();
    };
    let properties = object["properties"].as_object().cloned();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema
            .as_object_mut()
            .and_then(|schema| schema.remove("description"));
        without_null(&mut schema);
        json!({"name": name, "in": "query", "description": description, "schema": schema})
    };
    properties.into_iter().flatten().map(parameter).collect()
}

/// What may be left out of a query cannot be `null` in it.
fn without_null(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(kinds)) = members.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(any)) = members.get_mut("anyOf") {
        any.retain(|one| one["type"] != "null");
    }
}
