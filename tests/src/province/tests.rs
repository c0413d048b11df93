//! A county-month made by the generator is what the ledger says, and as incomplete as counties are.

use banyan_aggregator::service::{CompletenessCall, Service};
use banyan_shared::wire::Envelope;

use super::*;

fn county_month() -> Options {
    Options {
        from: "2026-03".parse().unwrap(),
        months: 1,
        seed: 7,
        below: vec!["520502".to_owned()],
        every: 4,
        own_percent: 55,
        times: 1,
    }
}

#[test]
fn what_was_made_is_what_the_ledger_says() {
    let dir = tempfile::tempdir().unwrap();
    let options = county_month();
    let Made { state, summary, next } = generate(dir.path(), &options, |_| {}).unwrap();
    assert!(next.len() > 200, "{} batches would come next", next.len());
    let end = state.catalogue.midnight(options.end());

    let ledger = Ledger::open(&ledger_dir(dir.path())).unwrap();
    let reader = ledger.reader().unwrap();
    let report = reader.verify_chain(1).unwrap();
    let again = fold(&reader, end).unwrap();
    assert_eq!(again.position, state.position);
    assert_eq!(
        again.cube.digest(),
        state.cube.digest(),
        "folding the ledger gives the same counts"
    );
    assert_eq!(summary.batches + summary.acts, state.position, "{report:?}");
    assert!(summary.reports < summary.versions && summary.reports > 17_000, "{summary:?}");
    let conflicts: usize = state
        .cube
        .forms()
        .iter()
        .flat_map(|form| form.blocks())
        .map(|(_, block)| {
            block.histories(0..u32::MAX).filter(|(_, report)| report.heads > 1).count()
        })
        .sum();
    assert!((1..100).contains(&conflicts), "{conflicts} in conflict");
    let signed = |row: banyan_aggregator::ledger::RowRef<'_>| {
        let envelope = Envelope::read_unbounded(row.bytes).unwrap();
        if let Some(agent) = state.agents.get(&envelope.agent) {
            envelope.open(&agent.key).unwrap();
        }
        Ok::<_, banyan_aggregator::ledger::LedgerError>(())
    };
    reader.read_from(1, signed).unwrap();
}

#[test]
fn a_county_is_as_complete_as_counties_are() {
    let dir = tempfile::tempdir().unwrap();
    let options = county_month();
    let Made { state, .. } = generate(dir.path(), &options, |_| {}).unwrap();
    let end = state.catalogue.midnight(options.end());
    drop(state);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (service, running) =
            Service::open(dir.path(), Arc::new(move || end), None).await.unwrap();
        let call = CompletenessCall {
            unit: "520502".to_owned(),
            period: "2026-03".to_owned(),
            ..CompletenessCall::default()
        };
        let found = serde_json::to_value(service.complete(&call).unwrap().completeness).unwrap();
        let of = |name: &str| found[name].as_u64().unwrap();
        let expected = of("expected");
        assert!(expected > 19_000, "{found}");
        let percent = of("received") * 100 / expected;
        assert!((88..98).contains(&percent), "{percent} % received: {found}");
        for part in ["late", "missing", "proxy", "incomplete"] {
            assert!(of(part) > 0, "{part}: {found}");
        }
        assert!(of("on_time") * 100 / expected > 70, "{found}");
        drop(service);
        running.stop().await.unwrap();
    });
}
