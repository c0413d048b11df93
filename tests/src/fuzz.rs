//! What a fuzzer is let loose on: everything that reads bytes from outside.
//!
//! Each target takes any bytes and panics if a promise does not hold: nothing but an error comes of bytes
//! that are no message, what reads is within its limits, and what was read is written back as the same.
//! `fuzz/` calls them under libFuzzer; the test `fuzz` runs them in the normal suite over the seeds and
//! random changes of them. This file is part of both.

use banyan_shared::catalogue::Catalogue;
use banyan_shared::catalogue::expr::{parse, parse_filter};
use banyan_shared::ids::AgentId;
use banyan_shared::keys::{SigningKey, sha256};
use banyan_shared::limits::{
    BATCH_ENTRIES_MAX, BATCH_VALUES_MAX, LIVES_MAX, PAYLOAD_BYTES_MAX, RECEIPT_RANGES_MAX,
};
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::tables::registry::{TableName, Tables};
use banyan_shared::wire::{
    Answer, Batch, Body, Bundle, EnrolCode, EnrolRequest, EnrolmentFile, Envelope, Grant,
    Introduction, Kind, Notice, Receipt, SignedGrant, decode, encode, pack, seal, unpack,
};

/// Something that reads bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its seeds' folder.
    pub name: &'static str,
    /// What is run.
    pub run: fn(&[u8]),
    /// Most memory it may hold at once beside a multiple of its input, in bytes.
    pub memory: usize,
    /// The multiple.
    pub times: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "envelope", run: envelope, memory: 64 << 10, times: 4 },
    // Compressed, a batch's body may be a megabyte, and each of its 128 Ki values take 16 bytes.
    Target { name: "batch", run: batch, memory: 24 << 20, times: 8 },
    Target { name: "receipt", run: receipt, memory: 256 << 10, times: 64 },
    Target { name: "notice", run: notice, memory: 64 << 10, times: 64 },
    Target { name: "answer", run: answer, memory: 256 << 10, times: 64 },
    Target { name: "bundle", run: bundle, memory: 64 << 10, times: 16 },
    Target { name: "grant", run: grant, memory: 256 << 10, times: 128 },
    Target { name: "enrolment", run: enrolment, memory: 256 << 10, times: 128 },
    Target { name: "code", run: code, memory: 64 << 10, times: 16 },
    Target { name: "catalogue", run: catalogue, memory: 8 << 20, times: 1024 },
    Target { name: "csv", run: csv, memory: 4 << 20, times: 512 },
    Target { name: "expression", run: expression, memory: 1 << 20, times: 512 },
    Target { name: "period", run: period, memory: 64 << 10, times: 16 },
    Target { name: "query", run: query, memory: 256 << 10, times: 64 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).expect("any 32 bytes are a seed")
}

/// Nothing is signed by this one.
fn stranger() -> SigningKey {
    SigningKey::from_seed(&[8; 32]).expect("any 32 bytes are a seed")
}

const AGENT: AgentId = AgentId([7; 6]);

/// A message of this kind with this body and a signature that holds only for [`AGENT`]'s own word.
fn message(kind: Kind, body: &[u8]) -> Vec<u8> {
    seal(kind, AGENT, body, &key())
}

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::read(bytes) else { return };
    assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
    assert!(envelope.unverified_body().len() < bytes.len());
    // Nobody but the fuzzer's own seeds has this key.
    if let Ok(body) = envelope.open(&key().public()) {
        assert_eq!(seal(envelope.kind, envelope.agent, body, &key()), bytes);
    }
}

fn batch(bytes: &[u8]) {
    if let Ok(entries) = unpack(bytes) {
        assert!(entries.len() <= BATCH_ENTRIES_MAX);
        assert_eq!(unpack(&pack(&entries)).as_ref(), Ok(&entries));
    }
    let message = message(Kind::Batch, bytes);
    let Ok(envelope) = Envelope::read(&message) else { return };
    let Ok(batch) = Batch::read(&envelope) else { return };
    assert!(batch.entries.len() <= BATCH_ENTRIES_MAX);
    let values = |body: &Body| match body {
        Body::Report { content, .. } => content.values.len(),
        _ => 0,
    };
    let values: usize = batch.entries.iter().map(|entry| values(&entry.body)).sum();
    assert!(values <= BATCH_VALUES_MAX);
    let again = batch.seal(&key());
    let Ok(envelope) = Envelope::read(&again) else { return };
    assert_eq!(Batch::read(&envelope), Ok(batch));
}

fn receipt(bytes: &[u8]) {
    let message = message(Kind::Receipt, bytes);
    let Ok(envelope) = Envelope::read(&message) else { return };
    let Ok(receipt) = Receipt::open(&envelope, &key().public()) else { return };
    assert!(receipt.lives.len() <= LIVES_MAX);
    for life in &receipt.lives {
        assert!(life.ranges.len() <= RECEIPT_RANGES_MAX);
        assert!(life.ranges.iter().all(|range| range.first <= range.last));
        assert!(life.ranges.windows(2).all(|two| two[0].last < two[1].first));
    }
    let again = receipt.seal(AGENT, &key());
    let envelope = Envelope::read(&again).expect("what was read is no longer than it was");
    assert_eq!(Receipt::open(&envelope, &key().public()), Ok(receipt));
}

fn notice(bytes: &[u8]) {
    if let Ok(notice) = decode::<Notice>(bytes) {
        assert_eq!(decode::<Notice>(&encode(&notice)), Ok(notice));
    }
}

fn answer(bytes: &[u8]) {
    if let Ok(answer) = decode::<Answer>(bytes) {
        assert_eq!(decode::<Answer>(&encode(&answer)), Ok(answer));
    }
    let message = message(Kind::Answer, bytes);
    if let Ok(envelope) = Envelope::read(&message) {
        // The root of nobody: whatever reads, it goes back to no root known here.
        assert!(Answer::open_pinned(&envelope, &[0; 16]).is_err());
    }
}

/// The file's own check sum stands in the way of changes: it is put right first.
fn bundle(bytes: &[u8]) {
    let _ = Bundle::from_bytes(bytes);
    let mut file = b"BANYAN-BUNDLE-1\n".to_vec();
    file.extend_from_slice(bytes);
    let sum = sha256(&[&file]);
    file.extend_from_slice(&sum[..8]);
    let Ok(bundle) = Bundle::from_bytes(&file) else { return };
    assert_eq!(bundle.to_bytes(), file);
    if let Ok((agent, _)) = bundle.heading() {
        let of = |message: &Vec<u8>| Envelope::read(message).map(|envelope| envelope.agent);
        assert!(bundle.messages.iter().all(|message| of(message) == Ok(agent)));
    }
    for message in &bundle.messages {
        envelope(message);
    }
}

fn grant(bytes: &[u8]) {
    if let Ok(grant) = decode::<Grant>(bytes) {
        assert_eq!(decode::<Grant>(&encode(&grant)), Ok(grant));
    }
    if let Ok(signed) = decode::<SignedGrant>(bytes) {
        let _ = signed.unverified();
        let _ = signed.open(&key().public());
        assert!(signed.open(&stranger().public()).is_err(), "no root of theirs");
    }
    let message = message(Kind::Introduce, bytes);
    if let Ok(envelope) = Envelope::read(&message) {
        let _ = Introduction::open(&envelope, &key().public());
        assert!(Introduction::open(&envelope, &stranger().public()).is_err(), "no root of theirs");
    }
}

fn enrolment(bytes: &[u8]) {
    let message = message(Kind::Enrol, bytes);
    if let Ok(envelope) = Envelope::read(&message) {
        // The sender is not whose key this is.
        assert!(EnrolRequest::open(&envelope).is_err());
    }
    let _ = EnrolmentFile::from_bytes(bytes);
    let _ = EnrolmentFile::from_bytes(&[b"BANYAN-ENROL-1\n", bytes].concat());
}

fn code(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(code) = text.parse::<EnrolCode>() {
        assert_eq!(code.to_string().parse::<EnrolCode>(), Ok(code));
    }
}

fn catalogue(bytes: &[u8]) {
    match Catalogue::load(bytes) {
        Ok(catalogue) => assert!(!catalogue.version.is_empty()),
        Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
    }
}

/// The first byte says which table.
fn csv(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let table = TableName::ALL[usize::from(*first) % TableName::ALL.len()];
    let mut tables = Tables::default();
    for error in tables.add(table, "fuzz.csv", rest) {
        assert!(!error.text(banyan_shared::catalogue::Lang::En).is_empty());
    }
}

fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for error in [parse(text).err(), parse_filter(text).err()].into_iter().flatten() {
        assert!(error.at <= text.len() && text.is_char_boundary(error.at));
    }
}

fn period(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(date) = text.parse::<Date>() {
        assert_eq!(date.to_string().parse::<Date>(), Ok(date));
    }
    if let Ok(period) = text.parse::<Period>() {
        assert!(period.first_day() <= period.last_day());
        assert_eq!(period.to_string().parse::<Period>(), Ok(period));
    }
    if let Ok(span) = text.parse::<Span>() {
        assert!(span.first_day() <= span.last_day());
        assert_eq!(span.to_string().parse::<Span>(), Ok(span));
    }
}

/// What comes behind `?` can be nothing but the question the route is for.
fn query(bytes: &[u8]) {
    use banyan_aggregator::http::{Request, request_of_query};
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for command in ["query", "completeness", "report"] {
        let Ok(request) = request_of_query(command, text) else { continue };
        let own = match request {
            Request::Query(_) => "query",
            Request::Completeness(_) => "completeness",
            Request::Report(_) => "report",
            _ => "another",
        };
        assert_eq!(own, command);
    }
}
