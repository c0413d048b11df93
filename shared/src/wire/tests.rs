use proptest::prelude::*;

use super::*;
use crate::codes::{ParkReason, Refusal};
use crate::ids::{Epoch, Millis, VersionId};
use crate::keys::Certificate;
use crate::limits::*;
use crate::period::{Period, PeriodType};
use crate::report::{Content, EnteredAt, How, Override, Reason, Value};

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn daily(day: i32, values: &[u64]) -> Body {
    Body::Report {
        facility: 0,
        form: 0,
        period: Period::from_index(PeriodType::Day, day).unwrap(),
        content: Content {
            values: values.iter().map(|v| Value::Number(*v)).collect(),
            how: How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt {
                minute: 29_500_000 + 1440 * day.unsigned_abs(),
                doubtful: false,
            },
            replaces: vec![],
        },
    }
}

fn batch(entries: Vec<Entry>) -> Batch {
    let agent = key().public().agent_id();
    Batch {
        agent,
        epoch: Epoch { counter: 1, random: 0x1234_5678 },
        context: 300,
        hello: None,
        entries,
    }
}

fn days(n: u64) -> Batch {
    batch(
        (1..=n)
            .map(|seq| {
                let v = seq * 7919 % 23;
                Entry {
                    seq,
                    body: daily(
                        20_000 + seq as i32,
                        &[u64::from(v > 2), v, v % 3, v / 4, v % 2, 0, v % 5],
                    ),
                }
            })
            .collect(),
    )
}

#[test]
fn a_batch_reads_back_and_only_its_sender_signs_it() {
    let batch = days(30);
    let bytes = batch.seal(&key());
    let envelope = Envelope::read(&bytes).unwrap();
    assert!(envelope.open(&key().public()).is_ok());
    assert!(envelope.open(&SigningKey::from_seed(&[8; 32]).unwrap().public()).is_err());
    assert_eq!(Batch::read(&envelope).unwrap(), batch);
}

#[test]
fn batches_meet_their_sizes() {
    let lone = days(1).seal(&key()).len();
    assert!(lone <= 115, "a lone daily report of 7 counts takes {lone} bytes");
    let thirty = days(30).seal(&key()).len();
    // `docs/benchmarks.md` quotes these: `-- --nocapture` shows them.
    println!("a lone daily report: {lone} bytes; 30 daily reports: {thirty} bytes");
    assert!(thirty <= 210, "30 daily reports of 7 counts take {thirty} bytes");
}

/// The bytes of version 1 for ever. If this test fails, version 1 has changed its meaning: make a
/// version 2 instead.
#[test]
fn golden_version_1() {
    let hello = Hello {
        nonce: 0x0102_0304_0506_0708,
        beacon: Beacon {
            version: (0, 1, 0),
            waiting: 3,
            clock_minute: 29_000_000,
            ..Beacon::default()
        },
        operating: None,
    };
    let mut batch = days(2);
    batch.hello = Some(hello.clone());
    batch.entries.push(Entry { seq: 5, body: Body::Void });
    let receipt = Receipt {
        store: StoreId { ledger: [1; 8], incarnation: 2 },
        position: 77,
        lives: vec![LifeReceipt {
            epoch: Some(batch.epoch),
            ranges: vec![RangeSum { first: 1, last: 2, sum: 99 }],
            refused: vec![(3, Refusal::NotInScope)],
            parked: vec![(2, ParkReason::FuturePeriod)],
        }],
        complete: true,
        answers: Some(9),
        time: Millis(1_770_000_000_000),
        credit: 4,
    };
    let agent = key().public().agent_id();
    let hello = Hello { operating: Some(key().public().tag()), ..hello };
    let rolled = Batch { hello: Some(hello), ..days(0) };
    let shown = format!(
        "batch {}\nreceipt {}\nbundle {}\ncode {}\nhash {:016x}\nrolled {}\n",
        data_encoding::HEXLOWER.encode(&batch.seal(&key())),
        data_encoding::HEXLOWER.encode(&receipt.seal(agent, &key())),
        data_encoding::HEXLOWER.encode(&Bundle { messages: vec![vec![1, 2, 3]] }.to_bytes()),
        EnrolCode { address: "10.0.0.1:8883".into(), root: [3; 16], number: 12, secret: [9; 10] },
        entry_hash(agent, batch.epoch, 1, 300, &batch.entries[0].body),
        data_encoding::HEXLOWER.encode(&rolled.seal(&key())),
    );
    assert_eq!(shown, include_str!("golden_v1.txt"), "actual:\n{shown}");
    for line in include_str!("golden_v1.txt").lines() {
        let (what, text) = line.split_once(' ').unwrap();
        match what {
            "batch" | "rolled" => {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
                let read = Batch::read(&Envelope::read(&bytes).unwrap()).unwrap();
                assert_eq!(read, if what == "batch" { batch.clone() } else { rolled.clone() });
            }
            "receipt" => {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
                let envelope = Envelope::read(&bytes).unwrap();
                assert_eq!(Receipt::open(&envelope, &key().public()).unwrap(), receipt);
            }
            _ => {}
        }
    }
}

#[test]
fn codes_survive_copying_and_tell_typing_errors() {
    let code =
        EnrolCode { address: "127.0.0.1:1883".into(), root: [5; 16], number: 1, secret: [200; 10] };
    let text = code.to_string();
    assert_eq!(text.parse::<EnrolCode>(), Ok(code.clone()));
    assert_eq!(format!(" {} ", text.to_lowercase().replace('-', " ")).parse(), Ok(code));
    for at in 7..text.len() {
        let mut typo = text.clone().into_bytes();
        if typo[at] == b'-' {
            continue;
        }
        typo[at] = if typo[at] == b'7' { b'8' } else { b'7' };
        assert!(String::from_utf8(typo).unwrap().parse::<EnrolCode>().is_err());
    }
    assert!("BANYAN".parse::<EnrolCode>().is_err());
    assert!("".parse::<EnrolCode>().is_err());
}

#[test]
fn an_enrolment_file_is_bound_to_its_root() {
    let root = SigningKey::from_seed(&[1; 32]).unwrap();
    let operating = SigningKey::from_seed(&[2; 32]).unwrap();
    let toml = b"version = \"1\"";
    let scope = FacilityScope {
        code: "520502105-TH".parse().unwrap(),
        name: "示例".into(),
        place: "贵州省 毕节市".into(),
        spells: vec![],
        roles: vec![],
        attributes: vec![],
    };
    let catalogue = crate::catalogue::CatalogueHash(crate::keys::sha256(&[toml]));
    let offer = Offer { context: 1, catalogue, facilities: vec![scope] };
    let mut file = EnrolmentFile {
        code: EnrolCode {
            address: "a:1".into(),
            root: root.public().fingerprint(),
            number: 1,
            secret: [1; 10],
        },
        root: root.public(),
        certificate: Certificate::issue(&root, operating.public(), 1, Millis(0)),
        offers: vec![offer],
        catalogue: deflate(toml),
        expires: Millis(1),
    };
    let bytes = file.to_bytes(&operating);
    assert_eq!(EnrolmentFile::from_bytes(&bytes).unwrap(), file);
    assert_eq!(file.catalogue_toml().unwrap(), toml);
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(EnrolmentFile::from_bytes(&damaged).is_err());
    assert!(EnrolmentFile::from_bytes(&file.to_bytes(&root)).is_err(), "signed by another key");
    file.code.root = [0; 16];
    assert!(EnrolmentFile::from_bytes(&file.to_bytes(&operating)).is_err(), "pins another root");
}

fn any_content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![
        4 => (0u64..50).prop_map(Value::Number),
        1 => (0..=VALUE_MAX).prop_map(Value::Number),
        1 => Just(Value::Missing),
        1 => Just(Value::NotApplicable),
    ];
    let version =
        (any::<[u8; 6]>(), any::<(u32, u32)>(), any::<u64>()).prop_map(|(w, (c, r), seq)| {
            VersionId { writer: AgentId(w), epoch: Epoch { counter: c, random: r }, seq }
        });
    (
        prop::collection::vec(value, 0..9),
        prop::sample::select(How::ALL),
        prop::option::of("[a-z]{1,8}|王[0-9]"),
        prop::option::of(prop::sample::select(Reason::ALL)),
        prop::option::of(prop::sample::select(Override::ALL)),
        any::<(bool, u32, bool)>(),
        prop::collection::vec(version, 0..3),
    )
        .prop_map(
            |(
                values,
                how,
                entered_by,
                reason,
                override_code,
                (withdrawn, minute, doubtful),
                replaces,
            )| {
                Content {
                    values,
                    how,
                    entered_by,
                    reason,
                    override_code,
                    withdrawn,
                    entered_at: EnteredAt { minute, doubtful },
                    replaces,
                }
            },
        )
}

fn any_body() -> impl Strategy<Value = Body> {
    let kind = prop::sample::select(&PeriodType::ALL[..]);
    prop_oneof![
        8 => (0u32..5, 0u16..3, kind, -60i32..200, any_content()).prop_map(|(facility, form, kind, index, content)| {
            let period = Period::from_index(kind, index).unwrap();
            Body::Report { facility, form, period, content }
        }),
        1 => Just(Body::Void),
        1 => Just(Body::Begins {
            earlier: vec![(Epoch { counter: 1, random: 2 }, 9)],
            lost: vec![(Epoch { counter: 1, random: 2 }, 3, 4)],
        }),
    ]
}

proptest! {
    #[test]
    fn every_batch_reads_back(bodies in prop::collection::vec((any_body(), 1u64..5), 0..40)) {
        let mut seq = 0;
        let entries = bodies.into_iter().map(|(body, step)| { seq += step; Entry { seq, body } }).collect();
        let batch = batch(entries);
        let bytes = batch.seal(&key());
        prop_assert_eq!(Batch::read(&Envelope::read(&bytes).unwrap()).unwrap(), batch);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), flip in any::<prop::sample::Index>(), n in 0u64..40) {
        let mut own = days(n).seal(&key());
        let at = flip.index(own.len());
        own[at] ^= bytes.first().copied().unwrap_or(1);
        for bytes in [&bytes, &own] {
            if let Ok(envelope) = Envelope::read(bytes) {
                let _ = Batch::read(&envelope);
                let _ = EnrolRequest::open(&envelope);
                let _ = Receipt::open(&envelope, &key().public());
            }
            let _ = Bundle::from_bytes(bytes);
            let _ = EnrolmentFile::from_bytes(bytes);
        }
    }
}

#[test]
fn an_answer_is_believed_only_from_the_pinned_root() {
    use crate::keys::Certificate;
    let key = |seed| SigningKey::from_seed(&[seed; 32]).unwrap();
    let (root, operating, agent) = (key(1), key(2), AgentId([3; 6]));
    let certificate = Certificate::issue(&root, operating.public(), 1, Millis(0));
    let answer = Answer::NotEnrolled { refusal: EnrolRefusal::Expired };
    let bytes = answer.seal(agent, &operating, &certificate, &root.public());
    let envelope = Envelope::read(&bytes).unwrap();
    let (read, cert, learned) =
        Answer::open_pinned(&envelope, &root.public().fingerprint()).unwrap();
    assert_eq!((read, cert, learned), (answer.clone(), certificate.clone(), root.public()));
    assert!(Answer::open_pinned(&envelope, &key(9).public().fingerprint()).is_err());
    // A stranger who shows the true root but certifies his own key.
    let own = Certificate::issue(&key(9), key(9).public(), 2, Millis(0));
    let forged = answer.seal(agent, &key(9), &own, &root.public());
    assert!(Answer::open(&Envelope::read(&forged).unwrap(), &root.public()).is_err());
    // The true certificate, another signer.
    let forged = answer.seal(agent, &key(9), &certificate, &root.public());
    assert!(Answer::open(&Envelope::read(&forged).unwrap(), &root.public()).is_err());
}

#[test]
fn a_life_of_an_agent_is_never_one_of_the_centres() {
    let mut sent = batch(vec![]);
    sent.epoch.counter = 0;
    let bytes = sent.seal(&key());
    let refused = Batch::read(&Envelope::read(&bytes).unwrap());
    assert!(matches!(refused, Err(WireError::Malformed(text)) if text.contains("from 1")));
}
