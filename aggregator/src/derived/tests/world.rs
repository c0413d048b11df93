//! A ledger being written and the state that follows it, step by step through everything that can happen.

use super::*;

/// 2026-02-10, noon in Shanghai.
pub(super) const BEGUN: Millis = Millis(1_770_696_000_000);
/// A third of a day: the future comes within a history.
pub(super) const STEP: i64 = 8 * 3_600_000;
pub(super) const FACILITIES: [&str; 8] = ["A", "B", "K", "N", "PL", "H1", "NEW", "D"];
/// Kinds of [`World::step`].
pub(super) const STEPS: u8 = 27;

pub(super) fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32]).unwrap()
}

/// A place among the kinds of acts: a new kind does not compile until a history here has it.
pub(super) fn kind(act: &Act) -> usize {
    match act {
        Act::Founded { .. } => 0,
        Act::Catalogue { .. } => 1,
        Act::Tables(_) => 2,
        Act::Codes(_) => 3,
        Act::Admitted { .. } => 4,
        Act::Readmitted { .. } => 5,
        Act::Scope { .. } => 6,
        Act::Revoked { .. } => 7,
        Act::Reports(_) => 8,
        Act::Stage(_) => 9,
        Act::Returned { .. } => 10,
        Act::Approved { .. } => 11,
        Act::Extended(_) => 12,
        Act::Scopes(_) => 13,
        Act::ClaimsWait { .. } => 14,
        Act::Claimed { .. } => 15,
        Act::ClaimRefused { .. } => 16,
        Act::CodeReplaces { .. } => 17,
        Act::OperatingKey { .. } => 18,
    }
}
pub(super) const KINDS: usize = 19;

/// What signs, and what certifies that.
pub(super) struct Keys {
    pub(super) root: SigningKey,
    pub(super) operating: SigningKey,
    pub(super) certificate: Certificate,
    /// Where they are kept, if a service is to open them.
    pub(super) home: Option<PathBuf>,
}

impl Keys {
    pub(super) fn in_memory() -> Keys {
        let (root, operating) = (key(201), key(200));
        let certificate = Certificate::issue(&root, operating.public(), 1, BEGUN);
        Keys { root, operating, certificate, home: None }
    }

    pub(super) fn on_disk(home: &Path) -> Keys {
        let keep = |root: &SigningKey| Ok(SigningKey::from_pkcs8(root.pkcs8())?);
        let (identity, root) = Identity::found(home, BEGUN, keep).unwrap();
        let Identity { key: operating, certificate, .. } = identity;
        Keys { root, operating, certificate, home: Some(home.to_owned()) }
    }

    pub(super) fn roll(&mut self, n: u8, now: Millis) -> Act {
        let before = self.certificate.clone();
        match &self.home {
            None => {
                self.operating = key(210 + n % 4);
                let (key, serial) = (self.operating.public(), before.serial + 1);
                self.certificate = Certificate::issue(&self.root, key, serial, now);
            }
            Some(home) => {
                roll_over(home, &self.root, RollOver::default(), now).unwrap();
                Identity::settle(home).unwrap();
                let Identity { key, certificate, .. } = Identity::open(home).unwrap();
                (self.operating, self.certificate) = (key, certificate);
            }
        }
        Act::OperatingKey { certificate: self.certificate.clone(), before }
    }
}

/// A ledger being written, and the state that follows it as the intake's does.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) ledger: Ledger,
    pub(super) keys: Keys,
    pub(super) state: State,
    pub(super) now: Millis,
    pub(super) lives: BTreeMap<AgentId, (Epoch, Seq)>,
    pub(super) kinds: BTreeSet<usize>,
    pub(super) turn: u32,
}

impl World {
    pub(super) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::create(&crate::service::ledger_dir(dir.path()), [5; 16]).unwrap();
        World::begin(dir, ledger, Keys::in_memory())
    }

    pub(super) fn begin(dir: tempfile::TempDir, ledger: Ledger, keys: Keys) -> World {
        let first = [
            Act::Founded { name: "试验".into() },
            Act::Catalogue { toml: deflate(fixture::CATALOGUE.as_bytes()) },
        ];
        let signed = |act: &Act| SignedAct { by: "test".into(), at: BEGUN, act: act.clone() };
        let state = State::begin(&first.each_ref().map(signed)).unwrap();
        let (lives, kinds) = Default::default();
        let mut world = World { dir, ledger, keys, state, now: BEGUN, lives, kinds, turn: 0 };
        first.into_iter().for_each(|act| world.act(act));
        world.act(tables(fixture::UNITS));
        world.act(Act::Codes(vec![NewCode {
            number: 7,
            secret: [1; 16],
            contexts: vec![context(1, &FACILITIES), context(2, &FACILITIES[4..])],
            uses: 9,
            expires: BEGUN,
        }]));
        for (n, context) in [(1, 1), (2, 2)] {
            world.admit(n, context, None);
        }
        world
    }

    pub(super) fn act(&mut self, act: Act) {
        self.kinds.insert(kind(&act));
        let signed = SignedAct { by: "test".into(), at: self.now, act };
        let row = NewRow::act(signed.seal(&self.keys.operating));
        let committed = self.ledger.commit_now(&[row], self.now).unwrap();
        self.state.apply_act(&signed, committed.positions.start, committed.received_at).unwrap();
    }

    pub(super) fn admit(&mut self, n: u8, context: u32, succeeds: Option<AgentId>) {
        let key = key(n).public();
        self.act(Act::Admitted { key, code: 7, context, machine: 1, succeeds });
        self.lives.entry(key.agent_id()).or_insert((Epoch { counter: 1, random: 9 }, 0));
    }

    pub(super) fn send(&mut self, n: u8, bodies: Vec<Body>) {
        let agent = key(n).public().agent_id();
        let (epoch, last) = self.lives.get_mut(&agent).unwrap();
        let entries = (*last + 1..).zip(bodies).map(|(seq, body)| Entry { seq, body }).collect();
        let context = if n == 2 { 2 } else { 1 };
        let batch = Batch { agent, epoch: *epoch, context, hello: None, entries };
        *last += batch.entries.len() as u64;
        let batch = HashedBatch::from(batch);
        let Judgement::Answer { store: true, refused, .. } = self.state.judge(&batch) else {
            return;
        };
        let added = self.state.hold(&batch, &refused);
        let stored = if refused.is_empty() { vec![] } else { wire::encode(&refused) };
        let row = NewRow { refused: stored, ..NewRow::batch(batch.seal(&key(n))) };
        let committed = self.ledger.commit_now(&[row], self.now).unwrap();
        let position = committed.positions.start;
        self.state.apply_batch(batch, &added, &refused, position, committed.received_at);
    }

    pub(super) fn content(&self, form: FormIx, a: u8, b: u8) -> Content {
        let lines = self.state.catalogue.forms[form.at()].lines.len();
        let value = |at: usize| match (usize::from(a) + at) % 7 {
            0 => Value::Missing,
            1 => Value::NotApplicable,
            2 => Value::Number(u64::from(u32::MAX) - 2 + u64::from(b)),
            n => Value::Number(n as u64 + u64::from(b)),
        };
        let other = VersionId {
            writer: key(b % 3 + 1).public().agent_id(),
            epoch: Epoch { counter: 1, random: 9 },
            seq: u64::from(a % 9) + 1,
        };
        Content {
            values: (0..lines).map(value).collect(),
            how: How::ALL[usize::from(b) % How::ALL.len()],
            entered_by: b.is_multiple_of(4).then(|| format!("n{}", b % 3)),
            reason: b.is_multiple_of(5).then_some(Reason::Recount),
            override_code: None,
            withdrawn: a.is_multiple_of(11),
            entered_at: EnteredAt {
                minute: u32::try_from(self.now.0 / 60_000).unwrap() - u32::from(a),
                doubtful: b.is_multiple_of(6),
            },
            replaces: if b.is_multiple_of(7) { vec![other] } else { vec![] },
        }
    }

    pub(super) fn period(&self, form: FormIx, c: u8) -> Period {
        let days = [
            (2024, 10, 30),
            (2024, 11, 3),
            (2024, 11, 4),
            (2024, 12, 31),
            (2025, 1, 1),
            (2025, 6, 15),
            (2026, 1, 5),
            (2026, 1, 6),
            (2026, 2, 9),
            (2026, 2, 13),
            (2026, 2, 20),
        ];
        let (year, month, day) = days[usize::from(c) % days.len()];
        let date = Date::new(year, month, day).unwrap();
        Period::containing(self.state.catalogue.forms[form.at()].period_type, date)
    }

    pub(super) fn report(&self, a: u8, b: u8, c: u8) -> Body {
        let form = FormIx(u16::from(b) % 3);
        let (period, content) = (self.period(form, c), self.content(form, a, b));
        Body::Report { facility: u32::from(a) % 8, form: form.0, period, content }
    }

    /// One thing that happens.
    pub(super) fn step(&mut self, (what, a, b, c): (u8, u8, u8, u8)) {
        self.now = self.now.plus(STEP);
        self.turn += 1;
        let turn = self.turn;
        let sender = a % 2 + 1;
        match what % STEPS {
            0..=7 => {
                let reports =
                    (0..c % 5 + 1).map(|n| self.report(a.wrapping_add(n), b, c.wrapping_add(n)));
                let reports = reports.collect();
                self.send(sender, reports);
            }
            8 => self.send(sender, vec![Body::Void]),
            9 => {
                // Refused for its shape, beside one that is not.
                let mut wrong = self.report(a, b, c);
                if let Body::Report { content, .. } = &mut wrong {
                    content.values.push(Value::Missing);
                }
                let right = self.report(b, a, c);
                self.send(sender, vec![wrong, right]);
            }
            10 => {
                let life = self.lives.get_mut(&key(sender).public().agent_id()).unwrap();
                let earlier = vec![(life.0, life.1.saturating_sub(u64::from(b % 2)))];
                *life = (Epoch { counter: life.0.counter + 1, random: turn }, 0);
                self.send(sender, vec![Body::Begins { earlier, lost: vec![] }]);
            }
            11 => self.act(tables(&format!("{}NEW,新,clinic,T1,,,,,\n", fixture::UNITS))),
            12 => self.act(tables(fixture::UNITS)),
            13 => {
                let toml = fixture::CATALOGUE.replacen("\"t.1\"", &format!("\"t.{turn}\""), 1);
                self.act(Act::Catalogue { toml: deflate(toml.as_bytes()) });
            }
            14 => {
                self.act(Act::Codes(vec![NewCode {
                    number: 100 + turn,
                    secret: [b; 16],
                    contexts: vec![context(1_000 + turn, &FACILITIES[..3])],
                    uses: 1,
                    expires: self.now,
                }]));
                let older = key(c % 2 + 1).public().agent_id();
                self.act(Act::CodeReplaces { code: 100 + turn, agent: older });
                self.admit(3 + b % 2, 1_000 + turn, Some(older));
            }
            15 => {
                let agent = key(sender).public().agent_id();
                self.act(Act::Scope { agent, context: context(2_000 + turn, &FACILITIES[..6]) });
            }
            16 => {
                let facilities = vec![FacilityScope {
                    code: "B".parse().unwrap(),
                    name: String::new(),
                    place: String::new(),
                    spells: vec![],
                    roles: vec![],
                    attributes: vec![],
                }];
                let catalogue = self.state.catalogue.hash;
                let offer = Offer { context: 3_000 + turn, catalogue, facilities };
                let key = key(5 + b % 3).public();
                let grant = Grant { key, offer, issued_at: self.now, succeeds: None };
                let grant = SignedGrant::sign(&grant, &self.keys.operating, &self.keys.certificate);
                self.act(Act::Readmitted { grant });
            }
            17 if b.is_multiple_of(8) => {
                self.act(Act::Revoked { agent: key(2).public().agent_id() });
            }
            18 => {
                let (writer, epoch) =
                    (self.keys.operating.public().agent_id(), Epoch { counter: 1, random: 4 });
                let first = self.state.next_number(writer, epoch);
                let form = FormIx(u16::from(b) % 3);
                let report = NewReport {
                    facility: FACILITIES[usize::from(a) % 8].parse().unwrap(),
                    form,
                    period: self.period(form, c),
                    content: self.content(form, a, b),
                };
                let catalogue = self.state.catalogue.hash;
                for act in Reports::pack((writer, epoch, first), catalogue, vec![report]) {
                    self.act(Act::Reports(act));
                }
            }
            20 => {
                let form = FormIx(u16::from(b) % 3);
                let code = self.state.catalogue.forms[form.at()].code.clone();
                let facilities = ["A", "B", "H1"].map(|code| code.parse().unwrap()).to_vec();
                let life = (key(sender).public().agent_id(), Epoch { counter: 1, random: 9 });
                let covered = Covered {
                    period: self.period(form, c),
                    facilities: vec![0, 1, 2],
                    seen: vec![(0, 0, u64::from(a % 9)), (2, 0, u64::from(c % 9))],
                };
                let stage = [Stage::Signed, Stage::Locked, Stage::Open][usize::from(a) % 3];
                let what = ("C1".to_owned(), code, covered.period.to_string());
                let cover = (facilities, vec![life], vec![covered]);
                self.act(Act::Stage(StageChange::new(what, stage, "op".into(), &cover)));
            }
            21 | 22 => {
                let form = FormIx(u16::from(b) % 3);
                let report = OneReport {
                    facility: FACILITIES[usize::from(a) % 8].parse().unwrap(),
                    form: self.state.catalogue.forms[form.at()].code.clone(),
                    period: self.period(form, c),
                    reason: Reason::Recount,
                    by: "op".into(),
                };
                let known = self.state.known(&report.facility, form, report.period);
                let versions: Vec<VersionId> = known.versions.iter().map(|v| v.id).collect();
                let seen = versions.iter().map(|id| ((id.writer, id.epoch), id.seq)).collect();
                self.act(if what % STEPS == 21 {
                    Act::Returned { report, seen }
                } else {
                    Act::Approved { report, versions }
                });
            }
            23 => {
                let row = Extended {
                    form: "daily".parse().unwrap(),
                    unit: FACILITIES[usize::from(a) % 5].parse().unwrap(),
                    period: "2026-01-05..2026-02-20".into(),
                    due: if b % 2 == 0 { "waived" } else { "2026-03-01 12:00" }.into(),
                    reason: "雪".into(),
                };
                self.act(Act::Extended(vec![row]));
            }
            24 => {
                let agent = key(sender).public().agent_id();
                let context = context(4_000 + turn, &FACILITIES);
                self.act(Act::Scopes(vec![(agent, context)]));
            }
            25 => {
                let key = key(8 + b % 3).public();
                self.act(Act::ClaimsWait { code: 7 });
                self.act(Act::Claimed { key, code: 7, context: 1, machine: u64::from(b) });
                if c % 4 == 3 {
                    self.act(Act::ClaimRefused { agent: key.agent_id() });
                }
            }
            26 => {
                let act = self.keys.roll(a, self.now);
                self.act(act);
            }
            _ => {
                self.state.rejudge(self.now);
            }
        }
    }

    pub(super) fn reader(&self) -> LedgerReader {
        self.ledger.reader().unwrap()
    }

    pub(super) fn open(&self) -> (Arc<Derived>, Option<State>) {
        open(self.dir.path())
    }

    pub(super) fn write(&self, derived: &Derived) -> Written {
        let chain = self.reader().hash_at(self.state.position).unwrap().unwrap();
        derived.write(&self.state, self.ledger.identity(), chain).unwrap()
    }

    /// Lets go of what the file holds; returns how many months.
    pub(super) fn put_aside(&mut self, derived: &Arc<Derived>) -> usize {
        self.state.cube.set_older(derived.clone());
        let months = derived.stay().to_put_aside(&self.state.cube, first_here(&self.state));
        let count = months.len();
        months.into_iter().for_each(|(form, month)| drop(self.state.cube.put_aside(form, month)));
        count
    }
}

pub(super) fn open(dir: &Path) -> (Arc<Derived>, Option<State>) {
    let ledger = crate::service::ledger_dir(dir);
    Derived::open(dir, &LedgerReader::open(&ledger).unwrap(), &ledger)
}

pub(super) fn context(number: u32, facilities: &[&str]) -> NewContext {
    let facilities = facilities.iter().map(|code| code.parse().unwrap()).collect();
    NewContext { number, facilities, below: vec![] }
}

pub(super) fn tables(units: &str) -> Act {
    let file = |table: TableName, text: &str| TableFile {
        table,
        file: table.file_name().into(),
        bytes: deflate(text.as_bytes()),
    };
    Act::Tables(vec![
        file(TableName::Units, units),
        file(TableName::Networks, fixture::NETWORKS),
        file(TableName::Members, fixture::MEMBERS),
    ])
}
