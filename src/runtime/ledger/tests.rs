use super::*;

fn entry(session: &str) -> Entry {
    Entry {
        session: session.into(),
        event: Event::Opened(Box::default()),
    }
}

#[tokio::test]
async fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(LedgerOptions::new(dir.path(), "demo", "a")).unwrap();
    let receipt = ledger.append(entry("s-1"), Durability::Disk).await.unwrap();
    assert_eq!(receipt.seq, 1);
    ledger
        .append(entry("s-2"), Durability::Spool)
        .await
        .unwrap();
    ledger.clone().shutdown(0).await.unwrap();
    assert_eq!(
        ledger.append(entry("s-3"), Durability::Disk).await,
        Err(LedgerError::Closed)
    );
}
