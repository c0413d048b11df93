//! A centre for tests: the real inbox, keys from seeds, refusals and parkings as the test says.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::catalogue::CatalogueHash;
use banyan_shared::codes::{ParkReason, Refusal};
use banyan_shared::ids::{AgentId, Epoch, Millis, Seq};
use banyan_shared::keys::{Certificate, PublicKey, SigningKey, sha256};
use banyan_shared::period::{Date, Period};
use banyan_shared::sync::{Fate, Inbox};
use banyan_shared::wire::{
    Answer, Batch, Body, EnrolCode, EnrolRefusal, EnrolRequest, EnrolmentFile, Envelope,
    FacilityScope, Grant, Introduction, Kind, Offer, Receipt, ScopeAttribute, ScopeSpell,
    SignedGrant, StoreId, deflate, entry_hash,
};

use super::NOW;
use crate::core::{Core, Step};

pub(crate) const CATALOGUE: &str = r#"
version = "t1"
time_zone = "Asia/Shanghai"
name = { zh = "试验目录", en = "Test catalogue" }

[[unit]]
code = "visit"
name = { zh = "人次", en = "visits" }

[[kind]]
code = "clinic"
name = { zh = "村卫生室", en = "Village clinic" }
class = "facility"
[[kind]]
code = "hospital"
name = { zh = "医院", en = "Hospital" }
class = "facility"

[[attribute]]
code = "tcm"
name = { zh = "中医", en = "TCM" }
value = [{ code = "yes", name = { zh = "是", en = "yes" } }]

[[element]]
code = "open_days"
name = { zh = "开诊天数", en = "days open" }
unit = "visit"
max = 1
[[element]]
code = "visits"
name = { zh = "总诊疗人次", en = "visits" }
unit = "visit"
[[element]]
code = "home_visits"
name = { zh = "出诊", en = "home visits" }
unit = "visit"
[[element]]
code = "tcm_visits"
name = { zh = "中医", en = "TCM visits" }
unit = "visit"
[[element]]
code = "referrals"
name = { zh = "转诊", en = "referrals" }
unit = "visit"
[[element]]
code = "followups"
name = { zh = "随访", en = "follow-ups" }
unit = "visit"
[[element]]
code = "consultations"
name = { zh = "会诊", en = "consultations" }
unit = "visit"
[[element]]
code = "beds"
name = { zh = "床位", en = "beds" }
unit = "visit"

[[form]]
code = "daily"
name = { zh = "日报", en = "Daily" }
kinds = ["clinic"]
period_type = "day"
due = { days = 1, time = "10:00" }
line = [
  { element = "open_days" },
  { element = "visits", max = 500 },
  { element = "home_visits" },
  { element = "tcm_visits", asked_of = "tcm=yes" },
  { element = "referrals", required = false },
  { element = "followups", required = false },
  { element = "consultations", required = false },
]
[[form]]
code = "monthly"
name = { zh = "月报", en = "Monthly" }
kinds = ["hospital"]
period_type = "month"
due = { days = 5, time = "23:59" }
line = [{ element = "beds" }]

[[rule]]
code = "R1"
severity = "error"
message = { zh = "出诊不能超过总诊疗", en = "home visits exceed visits" }
forms = ["daily"]
when = "home_visits <= visits"
[[rule]]
code = "R2"
severity = "warning"
message = { zh = "转诊偏多", en = "many referrals" }
forms = ["daily"]
when = "referrals <= 3"
"#;

/// What the centre does to a report, by facility number and period.
pub(crate) type Verdicts<T> = BTreeMap<(u32, Period), T>;

pub(crate) struct Centre {
    root: SigningKey,
    operating: SigningKey,
    pub(crate) certificate: Certificate,
    pub(crate) store: StoreId,
    pub(crate) inbox: BTreeMap<AgentId, Inbox>,
    agents: BTreeMap<AgentId, PublicKey>,
    pub(crate) refuse: Verdicts<Refusal>,
    pub(crate) park: Verdicts<ParkReason>,
    pub(crate) refuse_enrolment: Option<EnrolRefusal>,
    /// Nobody is let in, whatever is said.
    pub(crate) refuse_all: Option<EnrolRefusal>,
    /// Every body held, as the ledger would have it.
    pub(crate) ledger: BTreeMap<(AgentId, Epoch, Seq), Body>,
    pub(crate) time: Millis,
    /// The context it grants, and the catalogue of that.
    pub(crate) context: u32,
    pub(crate) catalogue: String,
    /// Whose history the agents granted from now on continue.
    pub(crate) succeeds: Option<AgentId>,
    position: u64,
}

fn scope(code: &str, kind: &str, tcm: bool, from: Option<Date>) -> FacilityScope {
    FacilityScope {
        code: code.parse().unwrap(),
        name: format!("{code}室"),
        place: "某县 某镇".to_owned(),
        spells: vec![ScopeSpell { from, to: None, kind: kind.to_owned() }],
        roles: Vec::new(),
        attributes: tcm
            .then(|| ScopeAttribute {
                attribute: "tcm".to_owned(),
                value: "yes".to_owned(),
                from: None,
                to: None,
            })
            .into_iter()
            .collect(),
    }
}

impl Centre {
    pub(crate) fn new() -> Centre {
        let root = SigningKey::from_seed(&[1; 32]).unwrap();
        let operating = SigningKey::from_seed(&[2; 32]).unwrap();
        let certificate = Certificate::issue(&root, operating.public(), 1, Millis(0));
        Centre {
            root,
            operating,
            certificate,
            store: StoreId { ledger: [5; 8], incarnation: 1 },
            inbox: BTreeMap::new(),
            agents: BTreeMap::new(),
            refuse: BTreeMap::new(),
            park: BTreeMap::new(),
            refuse_enrolment: None,
            refuse_all: None,
            ledger: BTreeMap::new(),
            time: NOW,
            context: 3,
            catalogue: CATALOGUE.to_owned(),
            succeeds: None,
            position: 0,
        }
    }

    pub(crate) fn code(&self) -> EnrolCode {
        EnrolCode {
            address: "127.0.0.1:1".to_owned(),
            root: self.root.public().fingerprint(),
            number: 1,
            secret: [7; 10],
        }
    }

    fn offer(&self, context: u32, facilities: Vec<FacilityScope>) -> Offer {
        let hash = CatalogueHash(sha256(&[self.catalogue.as_bytes()]));
        Offer { context, catalogue: hash, facilities }
    }

    /// Home V-1 (with TCM), then V-2, H-1, and V-9 which opens in 2027.
    fn home_offer(&self) -> Offer {
        let opens = Date::new(2027, 1, 1);
        self.offer(
            self.context,
            vec![
                scope("V-1", "clinic", true, None),
                scope("V-2", "clinic", false, None),
                scope("H-1", "hospital", false, None),
                scope("V-9", "clinic", false, opens),
            ],
        )
    }

    pub(crate) fn file(&self) -> EnrolmentFile {
        self.file_with(vec![self.home_offer()])
    }

    /// A stick with a context for each of two clinics.
    pub(crate) fn stick(&self) -> EnrolmentFile {
        let one = |context, code| self.offer(context, vec![scope(code, "clinic", false, None)]);
        self.file_with(vec![one(11, "V-11"), one(12, "V-12")])
    }

    fn file_with(&self, offers: Vec<Offer>) -> EnrolmentFile {
        EnrolmentFile {
            code: self.code(),
            root: self.root.public(),
            certificate: self.certificate.clone(),
            offers,
            catalogue: deflate(self.catalogue.as_bytes()),
            expires: NOW.plus(30 * super::DAY_MS),
        }
    }

    pub(crate) fn file_bytes(&self, file: &EnrolmentFile) -> Vec<u8> {
        file.to_bytes(&self.operating)
    }

    pub(crate) fn grant(&self, key: PublicKey) -> SignedGrant {
        let (offer, succeeds) = (self.home_offer(), self.succeeds);
        let grant = Grant { key, offer, issued_at: self.time, succeeds };
        SignedGrant::sign(&grant, &self.operating, &self.certificate)
    }

    pub(crate) fn answer(&self, agent: AgentId, answer: &Answer) -> Vec<u8> {
        answer.seal(agent, &self.operating, &self.certificate, &self.root.public())
    }

    /// The operating key made from a seed takes over, under a serial and from a moment on.
    pub(crate) fn roll(&mut self, seed: u8, serial: u32, at: Millis) {
        self.operating = SigningKey::from_seed(&[seed; 32]).unwrap();
        self.certificate = Certificate::issue(&self.root, self.operating.public(), serial, at);
    }

    /// Everything is gone but the keys.
    pub(crate) fn lose_everything(&mut self) {
        self.inbox.clear();
        self.agents.clear();
        self.ledger.clear();
        self.store.incarnation += 1;
    }

    /// Handles one message.
    pub(crate) fn handle(&mut self, message: &[u8]) -> Vec<Vec<u8>> {
        let envelope = Envelope::read(message).unwrap();
        let agent = envelope.agent;
        if let Some(refusal) = self.refuse_all {
            return vec![self.answer(agent, &Answer::NotEnrolled { refusal })];
        }
        match envelope.kind {
            Kind::Enrol => {
                let request = EnrolRequest::open(&envelope).unwrap();
                assert_eq!((request.code, request.secret), (1, [7; 10]));
                if let Some(refusal) = self.refuse_enrolment {
                    return vec![self.answer(agent, &Answer::NotEnrolled { refusal })];
                }
                self.agents.insert(agent, request.key);
                let grant = self.grant(request.key);
                let catalogue = Some(deflate(self.catalogue.as_bytes()));
                vec![self.answer(agent, &Answer::Granted { grant, catalogue })]
            }
            Kind::Introduce => {
                for (grant, _) in Introduction::open(&envelope, &self.root.public()).unwrap() {
                    self.agents.insert(agent, grant.key);
                }
                Vec::new()
            }
            Kind::Batch => {
                let Some(key) = self.agents.get(&agent) else {
                    return vec![self.answer(agent, &Answer::WhoAreYou { contexts: vec![] })];
                };
                let key = *key;
                envelope.open(&key).unwrap();
                let batch = Batch::read(&envelope).unwrap();
                // As the intake does it: the hand-over, before what only the new key proves.
                let knows = batch.hello.as_ref().map(|hello| hello.operating);
                let (serial, tag) = (self.certificate.serial, self.certificate.key.tag());
                let told = serial <= 1 || knows.is_none_or(|knows| knows == Some(tag));
                let grant = self.grant(key);
                let hand_over = self.answer(agent, &Answer::Granted { grant, catalogue: None });
                let receipt = self.batch(&batch);
                let mut answers = if told { vec![receipt] } else { vec![hand_over, receipt] };
                if batch.hello.is_some() && batch.context != self.context {
                    let grant = self.grant(key);
                    let catalogue = Some(deflate(self.catalogue.as_bytes()));
                    answers.push(self.answer(agent, &Answer::Granted { grant, catalogue }));
                }
                answers
            }
            other => panic!("{other:?}"),
        }
    }

    fn batch(&mut self, batch: &Batch) -> Vec<u8> {
        let (agent, epoch) = (batch.agent, batch.epoch);
        let inbox = self.inbox.entry(agent).or_default();
        let begins = batch.entries.iter().any(|entry| entry.seq == 1);
        let mut sent = Vec::new();
        for entry in &batch.entries {
            let hash = entry_hash(agent, epoch, entry.seq, batch.context, &entry.body);
            sent.push((entry.seq, hash));
            match inbox.fate(epoch, entry.seq, hash, begins) {
                Fate::New => {
                    let key = match &entry.body {
                        Body::Report { facility, period, .. } => Some((*facility, *period)),
                        _ => None,
                    };
                    if let Some(refusal) = key.and_then(|key| self.refuse.get(&key)) {
                        inbox.refuse(epoch, entry.seq, hash, *refusal);
                        continue;
                    }
                    inbox.hold(epoch, entry.seq, hash);
                    if let Some(reason) = key.and_then(|key| self.park.get(&key)) {
                        inbox.park(epoch, entry.seq, Some(*reason));
                    }
                    self.ledger.insert((agent, epoch, entry.seq), entry.body.clone());
                }
                Fate::Duplicate | Fate::StillRefused(_) | Fate::Reused | Fate::Early => {}
            }
        }
        self.position += 1;
        let (lives, complete) = match &batch.hello {
            Some(_) => {
                let (mut all, complete) = inbox.all();
                let of = inbox.of(epoch, &sent);
                if let Some(life) = all.iter_mut().find(|life| life.epoch == Some(epoch)) {
                    life.refused
                        .extend(of.refused.iter().filter(|(_, why)| *why == Refusal::SeqReused));
                }
                (all, complete)
            }
            None => (vec![inbox.of(epoch, &sent)], false),
        };
        let receipt = Receipt {
            store: self.store,
            position: self.position,
            lives,
            complete,
            answers: batch.hello.as_ref().map(|hello| hello.nonce),
            time: self.time,
            credit: 4,
        };
        receipt.seal(agent, &self.operating)
    }

    /// A receipt for everything, signed by a stranger.
    pub(crate) fn forge(&self, agent: AgentId, nonce: Option<u64>) -> Vec<u8> {
        let receipt = Receipt {
            store: self.store,
            position: 9,
            lives: Vec::new(),
            complete: true,
            answers: nonce,
            time: self.time,
            credit: 4,
        };
        receipt.seal(agent, &SigningKey::from_seed(&[66; 32]).unwrap())
    }

    /// One connection until nobody has anything more to say; true if it was hung up.
    pub(crate) fn connect(&mut self, core: &mut Core) -> bool {
        let mut step = core.connected().unwrap();
        let mut seen = BTreeSet::new();
        for _ in 0..10_000 {
            if step.hang_up {
                core.disconnected().unwrap();
                return true;
            }
            let mut next = Step::default();
            for message in std::mem::take(&mut step.send) {
                seen.insert(message.clone());
                for answer in self.handle(&message) {
                    let more = core.received(&answer).unwrap();
                    next.send.extend(more.send);
                    next.hang_up |= more.hang_up;
                }
            }
            if next == Step::default() {
                core.disconnected().unwrap();
                return false;
            }
            step = next;
        }
        panic!("the two never come to an end");
    }
}
