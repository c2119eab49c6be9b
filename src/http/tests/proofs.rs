//! Proofs of possession at the API.

use super::*;
use crate::identity::Scheme;

#[tokio::test]
async fn a_proof_is_held_against_the_address_that_is_configured_and_no_certificate_is_believed() {
    let api = Api::of(World::new()).await;
    let request = api
        .request(Method::GET, "/api/v1/approvals?state=pending")
        .header("authorization", "DPoP audrey")
        .header("dpop", "a.b.c")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-client-cert", "URI=spiffe://prod.example/admin");
    assert_eq!(tell(request).await.status, 200);
    let presented = api.world.presented.lock().unwrap().pop().unwrap();
    assert_eq!(presented.token.unwrap().scheme, Scheme::Dpop);
    assert_eq!(presented.proof.unwrap().expose_secret(), "a.b.c");
    assert_eq!(presented.method, "GET");
    let target = presented.target.as_deref();
    assert_eq!(target, Some("gateway.example/countersign/api/v1/approvals"));
    assert!(presented.certificate.is_none() && !presented.again);
}

#[tokio::test]
async fn of_two_proofs_none_counts() {
    let api = Api::of(World::new()).await;
    let request = api
        .request(Method::GET, "/api/v1/approvals")
        .header("authorization", "DPoP audrey");
    let twice = request.header("dpop", "a.b.c").header("dpop", "a.b.c");
    let told = tell(twice).await;
    assert_eq!((told.status, told.code()), (400, "proof_repeated"));
    assert!(told.header("www-authenticate").starts_with("Bearer "));
    assert!(api.world.presented.lock().unwrap().is_empty());
}
