//! Seeds: for each target a few inputs that read, so that changes of them come far.

use banyan_shared::ids::{AgentId, Epoch, Millis};
use banyan_shared::keys::{Certificate, PublicKey, SigningKey};
use banyan_shared::report::{Content, EnteredAt, How, Reason, Value};
use banyan_shared::wire::{
    Answer, Batch, Beacon, Body, Bundle, EnrolCode, EnrolRefusal, EnrolRequest, Entry,
    FacilityScope, Grant, Hello, Introduction, Kind, LifeReceipt, Notice, Offer, RangeSum, Receipt,
    ScopeAttribute, ScopeRole, ScopeSpell, SignedGrant, StoreId, encode, pack, seal,
};

const CATALOGUE: &str = include_str!("../../aggregator/src/query/fixture.toml");
const AGENT: AgentId = AgentId([7; 6]);

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn public() -> PublicKey {
    key().public()
}

fn certificate() -> Certificate {
    Certificate::issue(&key(), public(), 1, Millis(1_770_000_000_000))
}

fn entries() -> Vec<Entry> {
    let content = |values: Vec<Value>, how, reason| Content {
        values,
        how,
        entered_by: Some("W07".into()),
        reason,
        override_code: None,
        withdrawn: false,
        entered_at: EnteredAt { minute: 29_000_000, doubtful: true },
        replaces: vec![],
    };
    let report = |facility, period: &str, content| Body::Report {
        facility,
        form: 1,
        period: period.parse().unwrap(),
        content,
    };
    let mixed =
        vec![Value::Number(0), Value::Missing, Value::NotApplicable, Value::Number(1 << 40)];
    let plain = |n| vec![Value::Number(n), Value::Number(2), Value::Missing, Value::Number(n)];
    vec![
        Entry { seq: 1, body: report(0, "2026-01-05", content(mixed, How::Direct, None)) },
        Entry { seq: 2, body: report(0, "2026-01-06", content(plain(7), How::Proxy, None)) },
        Entry {
            seq: 3,
            body: report(300, "2026-01", content(plain(9), How::Import, Some(Reason::ALL[0]))),
        },
        Entry { seq: 9, body: Body::Void },
    ]
}

fn batch(entries: Vec<Entry>, hello: bool) -> Batch {
    let beacon = Beacon { waiting: 3, clock_minute: 29_000_000, ..Beacon::default() };
    Batch {
        agent: AGENT,
        epoch: Epoch { counter: 1, random: 0x1234_5678 },
        context: 300,
        hello: hello.then_some(Hello { nonce: 0x0102_0304_0506_0708, beacon, operating: None }),
        entries,
    }
}

/// The body of a message: what is between its header and its signature.
fn body(message: &[u8]) -> Vec<u8> {
    banyan_shared::wire::Envelope::read(message).unwrap().unverified_body().to_vec()
}

fn receipt() -> Receipt {
    Receipt {
        store: StoreId { ledger: [1; 8], incarnation: 2 },
        position: 77,
        lives: vec![LifeReceipt {
            epoch: Some(Epoch { counter: 1, random: 5 }),
            ranges: vec![
                RangeSum { first: 1, last: 2, sum: 99 },
                RangeSum { first: 5, last: 900, sum: u64::MAX },
            ],
            refused: vec![(3, banyan_shared::codes::Refusal::NotInScope)],
            parked: vec![(2, banyan_shared::codes::ParkReason::FuturePeriod)],
        }],
        complete: true,
        answers: Some(9),
        time: Millis(1_770_000_000_000),
        credit: 4,
    }
}

fn grant() -> Grant {
    let day = |text: &str| Some(text.parse().unwrap());
    let facility = FacilityScope {
        code: "520502105001-VC".parse().unwrap(),
        name: "一村卫生室".into(),
        place: "贵州省 毕节市 七星关区".into(),
        spells: vec![ScopeSpell { from: day("2020-01-01"), to: None, kind: "clinic".into() }],
        roles: vec![ScopeRole {
            role: "member".into(),
            network_kind: "county_community".into(),
            from: None,
            to: day("2027-01-01"),
        }],
        attributes: vec![ScopeAttribute {
            attribute: "hospital_type".into(),
            value: "tcm".into(),
            from: None,
            to: None,
        }],
    };
    Grant {
        key: public(),
        offer: Offer {
            context: 300,
            catalogue: banyan_shared::catalogue::CatalogueHash([5; 32]),
            facilities: vec![facility],
        },
        issued_at: Millis(1_770_000_000_000),
        succeeds: Some(AGENT),
    }
}

type Seed = (&'static str, String, Vec<u8>);

/// Target, name and bytes of each.
pub(crate) fn made() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = Vec::new();
    let mut add = |target, name: &str, bytes: &[u8]| {
        seeds.push((target, name.to_owned(), bytes.to_vec()));
    };
    let signed = SignedGrant::sign(&grant(), &key(), &certificate());
    let sealed = batch(entries(), true).seal(&key());
    add("envelope", "batch", &sealed);
    add("envelope", "receipt", &receipt().seal(AGENT, &key()));
    add("envelope", "empty", &seal(Kind::Act, AGENT, &[], &key()));
    add("batch", "body", &body(&sealed));
    add("batch", "empty", &body(&batch(vec![], true).seal(&key())));
    add("batch", "entries", &pack(&entries()));
    let many = (1..200).map(|seq| Entry { seq, ..entries()[1].clone() }).collect();
    add("batch", "compressed", &body(&batch(many, false).seal(&key())));
    add("receipt", "body", &encode(&receipt()));
    add("receipt", "bare", &encode(&Receipt { lives: vec![], answers: None, ..receipt() }));
    let plain = Notice::Plain { number: 5, code: 300, arguments: vec![0, 1, u64::MAX] };
    add("notice", "plain", &encode(&plain));
    let granted = Answer::Granted { grant: signed.clone(), catalogue: Some(vec![1, 2, 3]) };
    add("answer", "granted", &encode(&granted));
    let refused = Answer::NotEnrolled { refusal: EnrolRefusal::Expired };
    add("answer", "refused", &encode(&refused));
    add("answer", "who", &encode(&Answer::WhoAreYou { contexts: vec![1, 300] }));
    let elsewhere = Answer::Elsewhere { address: "broker.example.org:8883".to_owned() };
    add("answer", "elsewhere", &encode(&elsewhere));
    add("answer", "sealed", &body(&granted.seal(AGENT, &key(), &certificate(), &public())));
    let empty = seal(Kind::Introduce, AGENT, &[], &key());
    let down = receipt().seal(AGENT, &key());
    let file = Bundle { messages: vec![sealed.clone(), empty.clone(), empty] }.to_bytes();
    add("bundle", "three", &file[16..file.len() - 8]);
    let answer = Bundle { messages: vec![down] }.to_bytes();
    add("bundle", "answer", &answer[16..answer.len() - 8]);
    add("bundle", "file", &file);
    add("grant", "grant", &encode(&grant()));
    add("grant", "signed", &encode(&signed));
    add("grant", "introduction", &encode(&Introduction { grants: vec![signed], nonce: 9 }));
    let request = EnrolRequest {
        key: public(),
        code: 12,
        secret: [9; 10],
        facility: Some("520502105001-VC".parse().unwrap()),
        machine: 99,
    };
    add("enrolment", "request", &encode(&request));
    let code =
        EnrolCode { address: "10.0.0.1:8883".into(), root: [3; 16], number: 12, secret: [9; 10] };
    add("code", "code", code.to_string().as_bytes());
    add("code", "typed", code.to_string().to_lowercase().replace('-', " ").as_bytes());
    add("catalogue", "whole", CATALOGUE.as_bytes());
    let first: Vec<&str> = CATALOGUE.split("\n\n").take(3).collect();
    add("catalogue", "begun", first.join("\n\n").as_bytes());
    for (name, text) in [
        (
            "units",
            "\u{0}code,name,kind,parent,opened,closed,status,succeeded_by\nP,省,province,,,,,\nA,\"甲, 诊所\",clinic,P,2020-01-01,20260301,active,B;C\n",
        ),
        ("attributes", "\u{1}unit,attribute,value,from,to\r\nA,hospital_type,tcm,,\r\n"),
        ("networks", "\u{2}\u{feff}name,code,kind,area\n县,G1,community,C1;C2\n"),
        (
            "members",
            "\u{3}network,unit,role,from,to,kinds,primary\nG1,A,lead,2026-01-01,,clinic,yes\n",
        ),
        (
            "extensions",
            "\u{5}form,unit,period,due,reason\ndaily,A,2026-01..2026-03,2026-04-01 18:00,雪\ndaily,A,2026W05,waived,\n",
        ),
        (
            "targets",
            "\u{7}indicator,unit,level,attribute,direction,low,high,from,to,source,status\nx,,county,a=b,up,65,,,,s,official\n",
        ),
    ] {
        add("csv", name, text.as_bytes());
    }
    for (name, text) in [
        ("sum", "visits[kind=clinic] + 2 * home_visits[role=lead@community] >= 0.5"),
        ("filter", "kind=clinic|hospital; role=lead@community; hospital_type=tcm"),
        ("logic", "not (a > 1 and b <= -2 or is_missing(c)) -> a / b < 3"),
    ] {
        add("expression", name, text.as_bytes());
    }
    for (name, text) in [
        ("day", "2026-01-31"),
        ("short", "20260131"),
        ("week", "2026W05"),
        ("quarter", "2026Q1..2026Q4"),
        ("half", "2026S1"),
        ("range", "2026-01..2027-03"),
        ("year", "2026"),
    ] {
        add("period", name, text.as_bytes());
    }
    for (name, text) in [
        (
            "query",
            "unit=520502&period=2026-01&by=children,month&element=total_visits&names=1&format=csv&lang=en",
        ),
        (
            "named",
            "unit=%E4%B8%83%E6%98%9F%E5%85%B3%E5%8C%BA&period=2026Q1&membership=today&as_of=2026-02-10T09:00:00%2B08:00",
        ),
        ("report", "facility=520502105001-VC&form=vc_daily&period=2026-01-31&history=true"),
    ] {
        add("query", name, text.as_bytes());
    }
    seeds
}
