//! The agent without network and without people: commands in, replies out; messages in, messages out.
//!
//! One [`Core`] at a time has a data directory open. The service and the commands use the same one, so that
//! `record` does the same with and without a running service. All calls block on the disk.
//!
//! A connection that shows only a certificate of the agent's own is a *first contact*: it serves to be
//! enrolled, or known again by a grant, and to be given a certificate; everything else waits for the next.
//! What the agent says of itself is in `telling`, delivery by hand in `bundle`.

mod bundle;
mod telling;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use banyan_shared::address::MqttAddress;
use banyan_shared::catalogue::FormIx;
use banyan_shared::ids::Millis;
use banyan_shared::limits::PAYLOAD_BYTES_MAX;
use banyan_shared::period::Date;
use banyan_shared::report::{Content, Value};
use banyan_shared::sync::{Config, Event};
use banyan_shared::wire::{
    Answer, Body, EnrolRefusal, EnrolRequest, Envelope, Introduction, Kind, Receipt, SignedGrant,
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::capture::{self, Draft, Known, Saved, Time};
use crate::clock::{SharedClock, SystemClock};
use crate::command::{Command, Refused, Reply, SyncState};
use crate::identity::{Context, DirLock, Identity, Issued};
use crate::link::LinkConfig;
use crate::note::{Note, note};
use crate::route::Route;
use crate::store::{Beyond, ReportKey, Store, day_of};
use crate::tls::{self, Pin, Shown as Proof};

/// Most introductions on one connection: a centre that still asks is not listening.
const INTRODUCTIONS_MAX: u32 = 8;
/// Bytes of grants in one introduction; a message holds no more than its limit.
const INTRODUCTION_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 16 * 1024;
/// Most rows `queue ls` gives.
pub const QUEUE_ROWS_MAX: usize = 1000;

/// How an agent is run.
#[derive(Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The centre's address, if not the one enrolled with.
    pub address: Option<String>,
    /// The machine's fingerprint, to notice a copied disk.
    pub machine: Option<u64>,
    /// How it sends.
    pub config: Config,
    /// Where the time comes from.
    pub clock: SharedClock,
}

impl Options {
    /// The usual options for `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            address: None,
            machine: crate::machine::fingerprint(),
            config: Config::default(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// What happens on one connection.
#[derive(Clone, Copy, Debug)]
struct Session {
    nonce: u64,
    /// The request to enrol, or the introduction of a first contact, is on its way since then, by the
    /// steady clock, and nothing else yet.
    asking: Option<Millis>,
    introductions: u32,
    /// Whether the next certificate was asked for.
    renewing: bool,
}

/// What is to be done after a message or a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Messages to publish, in order.
    pub send: Vec<Vec<u8>>,
    /// Whether the connection serves no purpose any more.
    pub hang_up: bool,
    /// Whether another connection is wanted in its place at once.
    pub again: bool,
}

impl Step {
    fn send(send: impl IntoIterator<Item = Vec<u8>>) -> Step {
        Step { send: send.into_iter().collect(), ..Step::default() }
    }

    fn hang_up() -> Step {
        Step { hang_up: true, ..Step::default() }
    }
}

/// How TLS is spoken, kept so that sessions are resumed.
struct Secured {
    proof: Proof,
    pin: Pin,
    config: Arc<rustls::ClientConfig>,
}

/// The agent.
pub struct Core {
    options: Options,
    identity: Identity,
    store: Option<Store>,
    session: Option<Session>,
    /// How many hellos were answered since the start.
    hellos: u64,
    link: String,
    secured: Option<Secured>,
    /// What the present connection shows the centre; none without TLS.
    proof: Option<Proof>,
    route: Route,
    /// How many hellos were answered before the present connection.
    hellos_before: u64,
    /// The centre did not let in whoever shows the issued certificate: it is not shown until the next comes.
    issued_refused: bool,
    /// Why the last connection ended.
    detail: Option<Note>,
    /// What went wrong here, and not on the line, since a hello was last answered.
    fault: Option<Note>,
    /// The day on which old history was dropped last.
    tidied: Option<Date>,
    /// A command asked for a new hello.
    pub(crate) hello_wanted: bool,
    /// Messages to be published that came of a command.
    unsent: Vec<Vec<u8>>,
    /// Let go of last.
    _lock: DirLock,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("agent", &self.identity.agent()).finish_non_exhaustive()
    }
}

/// Looks up reports in the store, whatever context they were made under.
struct KnownInStore<'a> {
    store: &'a Store,
    identity: &'a mut Identity,
    present: &'a Context,
    /// What earlier drafts of the same command say.
    earlier: &'a HashMap<ReportKey, Content>,
    /// Why a look-up failed: the disk's fault and not the draft's.
    failed: Option<Note>,
}

impl Known for KnownInStore<'_> {
    fn newest(&mut self, key: &ReportKey, form: FormIx) -> Result<Option<Content>, Note> {
        if let Some(content) = self.earlier.get(key) {
            return Ok(Some(content.clone()));
        }
        self.stored(key, form).inspect_err(|note| self.failed = Some(note.clone()))
    }

    fn beyond(&self, key: &ReportKey) -> Option<Beyond> {
        // What this very command saves is known in full.
        if self.earlier.contains_key(key) { None } else { self.store.beyond(key, self.identity) }
    }
}

impl KnownInStore<'_> {
    fn stored(&mut self, key: &ReportKey, form: FormIx) -> Result<Option<Content>, Note> {
        let Some(id) = self.store.newest(key) else { return Ok(None) };
        let Some((payload, _)) = self.store.payload(id)? else { return Ok(None) };
        let Body::Report { form: then, content, .. } = payload.body else { return Ok(None) };
        let context = self.identity.context(payload.context)?;
        if context.catalogue.hash == self.present.catalogue.hash {
            return Ok(Some(content));
        }
        // Another version of the catalogue: elements are found again by their codes.
        let now = &self.present.catalogue;
        let Some(old) = context.catalogue.forms.get(usize::from(then)) else { return Ok(None) };
        let values = now.forms[form.at()].lines.iter().map(|line| {
            let code = now.elements[line.element.at()].code.as_str();
            let at = context.catalogue.element(code).and_then(|element| old.line_of(element));
            at.and_then(|at| content.values.get(at)).copied().unwrap_or(Value::Missing)
        });
        Ok(Some(Content { values: values.collect(), ..content }))
    }
}

impl Core {
    /// Opens the agent in the options' data directory.
    ///
    /// # Errors
    /// Not enrolled, the directory is in use (code `locked`), or the disk fails.
    pub fn open(options: Options) -> Result<Core, Note> {
        if Identity::is_vacant(&options.data_dir) {
            return Err(not_enrolled());
        }
        let lock = DirLock::take(&options.data_dir)?;
        let identity = Identity::open(&options.data_dir)?.ok_or_else(not_enrolled)?;
        let mut core = Core {
            options,
            identity,
            store: None,
            session: None,
            hellos: 0,
            link: "never".to_owned(),
            secured: None,
            proof: None,
            route: Route::default(),
            hellos_before: 0,
            issued_refused: false,
            detail: None,
            fault: None,
            tidied: None,
            hello_wanted: false,
            unsent: Vec::new(),
            _lock: lock,
        };
        core.open_store()?;
        core.tidy()?;
        Ok(core)
    }

    fn open_store(&mut self) -> Result<(), Note> {
        if self.store.is_none() && self.identity.spoken().is_some() {
            let Options { data_dir, machine, config, clock, .. } = &self.options;
            self.store =
                Some(Store::open(data_dir, &mut self.identity, *machine, *config, clock.now())?);
        }
        Ok(())
    }

    /// Opens the queue again if a write has failed, or if that failed before; whatever was acknowledged is
    /// still there.
    fn mend(&mut self) -> Result<(), Note> {
        let fit = self.store.as_ref().is_some_and(Store::is_fit);
        if self.identity.spoken().is_some() && !fit { self.reopen() } else { Ok(()) }
    }

    /// Opens the queue again. What it knew of the connection is gone, so a new one is wanted.
    fn reopen(&mut self) -> Result<(), Note> {
        self.store = None;
        self.session = None;
        self.hello_wanted = true;
        self.open_store()
    }

    /// As after a write that failed and a queue that could not be opened again.
    #[cfg(test)]
    pub(crate) fn lose_store(&mut self) {
        (self.store, self.session) = (None, None);
    }

    /// [`Core::drop_history`], whose failure stops nothing: there is time for it tomorrow.
    fn tidy(&mut self) -> Result<(), Note> {
        if let Err(note) = self.drop_history() {
            tracing::warn!(%note, "old history could not be dropped");
            self.mend()?;
        }
        Ok(())
    }

    /// Drops history that is old enough, once a day and between connections. How old it is only the
    /// centre's clock says: one of a PC may stand in any year.
    fn drop_history(&mut self) -> Result<(), Note> {
        if let (Some(store), None) = (&mut self.store, self.session)
            && let Some(heard) = store.clock.receipt
            && let Some(number) = self.identity.present()
        {
            // The time zone matters little there.
            let context = self.identity.context(number);
            let today = context.map_or_else(|_| day_of(heard), |at| at.catalogue.day_at(heard));
            if self.tidied != Some(today) {
                store.drop_old(today, &mut self.identity)?;
                self.tidied = Some(today);
            }
        }
        Ok(())
    }

    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The centre's address.
    pub fn address(&self) -> &str {
        self.options.address.as_deref().unwrap_or_else(|| self.identity.address())
    }

    /// How the next connection is to be made. A fault of the address is left to the link to tell.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn link_config(&mut self) -> Result<LinkConfig, Note> {
        let mut config = LinkConfig::new(self.destination(), self.identity.agent());
        self.proof = None;
        self.hellos_before = self.hellos;
        if config.address.parse::<MqttAddress>().is_ok_and(|address| address.tls) {
            config.tls = Some(self.secure()?);
        }
        Ok(config)
    }

    /// The address of the next connection.
    fn destination(&mut self) -> String {
        let secured = |address: &str| address.parse().is_ok_and(|to: MqttAddress| to.tls);
        let proven = self.identity.issued().is_some() && !self.issued_refused;
        let at_home = self.options.address.is_some() || self.identity.code().is_some();
        let broker = self.identity.broker().filter(|at| !at_home && (proven || !secured(at)));
        let home = self.options.address.as_deref().unwrap_or_else(|| self.identity.address());
        self.route.choose(home, broker).to_owned()
    }

    fn secure(&mut self) -> Result<Arc<rustls::ClientConfig>, Note> {
        let issued = self.identity.issued().filter(|_| !self.issued_refused);
        let proof = if issued.is_some() { Proof::Issued } else { Proof::Own };
        self.proof = Some(proof);
        let newest =
            self.identity.certificate().map_or((0, Millis(i64::MIN)), |known| known.rank());
        let pin = Pin { root: self.identity.pinned(), newest };
        if let Some(known) = &self.secured
            && (known.proof, known.pin) == (proof, pin)
        {
            return Ok(known.config.clone());
        }
        let shown = issued.map(|issued| issued.certificate.as_slice());
        let config = tls::client_config(self.identity.key(), shown, pin)
            .map_err(|error| note!(Error, "tls", "{error}", "{error}"))?;
        self.secured = Some(Secured { proof, pin, config: config.clone() });
        Ok(config)
    }

    /// The centre did not let this agent in. An issued certificate may have expired: the next connection is
    /// a first contact. Nobody is turned away from that but who was revoked.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn not_authorised(&mut self) -> Result<(), Note> {
        match self.proof {
            // A broker's word says nothing about the centre, who is asked next.
            _ if self.route.is_at_broker() => {}
            Some(Proof::Issued) => self.issued_refused = true,
            Some(Proof::Own) => self.identity.set_refusal(Some(EnrolRefusal::AgentRevoked))?,
            None => {}
        }
        Ok(())
    }

    fn is_first_contact(&self) -> bool {
        self.proof == Some(Proof::Own)
    }

    /// Carries out a command.
    pub fn handle(&mut self, command: Command) -> Reply {
        if let Err(note) = self.mend() {
            return Reply::Failed(note);
        }
        let reply = match command {
            Command::Save { drafts, together } => self.save(&drafts, together),
            Command::Status => self.status().map(|status| Reply::Status(Box::new(status))),
            Command::Queue => self.queue().map(Reply::Queue),
            Command::Show { entry } => self.show(&entry).map(|shown| Reply::Shown(Box::new(shown))),
            Command::Sync => {
                self.hello_wanted = true;
                // What counts is what the centre says now.
                if let Err(note) = self.identity.set_refusal(None) {
                    return Reply::Failed(note);
                }
                Ok(Reply::Sync(self.sync_state()))
            }
            Command::SyncState => Ok(Reply::Sync(self.sync_state())),
            Command::BundleExport { from } => self.bundle_part(from),
            Command::BundleImport { messages } => self.bundle_answer(&messages),
        };
        if let Err(note) = self.mend() {
            tracing::warn!(%note, "the queue could not be opened again; the next command tries anew");
        }
        reply.unwrap_or_else(Reply::Failed)
    }

    fn present(&mut self) -> Result<Context, Note> {
        let number = self.identity.present().ok_or_else(enrolment_open)?;
        self.identity.context(number)
    }

    fn store(&self) -> Result<&Store, Note> {
        self.store.as_ref().ok_or_else(enrolment_open)
    }

    fn time(&self, context: &Context) -> Time {
        let now = self.options.clock.now();
        let state = self.store.as_ref().map(|store| store.clock).unwrap_or_default();
        let best = state.best(now);
        Time { now, trusted: state.trusts(now), best, today: context.catalogue.day_at(best) }
    }

    fn save(&mut self, drafts: &[Draft], together: bool) -> Result<Reply, Note> {
        let context = self.present()?;
        let time = self.time(&context);
        let store = self.store.as_mut().ok_or_else(enrolment_open)?;
        let mut saved: Vec<Saved> = Vec::new();
        let mut refused: Vec<Refused> = Vec::new();
        let mut reports = Vec::new();
        let mut earlier = HashMap::new();
        for draft in drafts {
            let mut known = KnownInStore {
                store,
                identity: &mut self.identity,
                present: &context,
                earlier: &earlier,
                failed: None,
            };
            let checked = capture::check(draft, &context, time, &mut known);
            if let Some(note) = known.failed {
                return Err(note);
            }
            match checked {
                Ok(checked) => {
                    for one in checked {
                        saved.push(one.saved);
                        if let Some(report) = one.report {
                            earlier.insert(report.key.clone(), report.content.clone());
                            reports.push(report);
                        }
                    }
                }
                Err(faults) => refused.push(Refused { tag: draft.tag, faults }),
            }
        }
        if together && !refused.is_empty() {
            return Ok(Reply::Saved { saved: Vec::new(), refused });
        }
        // Two drafts for one report in one command come to the same as when entered one by one.
        store.save(context.number, reports, time.now, time.today)?;
        Ok(Reply::Saved { saved, refused })
    }

    fn sync_state(&self) -> SyncState {
        SyncState {
            hellos: self.hellos,
            waiting: self.store.as_ref().map_or(0, |store| store.outbox.waiting() as u64),
            enrolled: self.identity.code().is_none() && self.store.is_some(),
            link: self.link.clone(),
            detail: self.detail.clone(),
            fault: self.fault.clone(),
            refusal: self.identity.refusal(),
        }
    }

    /// How many hellos were answered since the start.
    pub(crate) fn hellos(&self) -> u64 {
        self.hellos
    }

    /// How many entries were released since the queue was opened.
    pub(crate) fn released(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.released)
    }

    /// Whether a hello was answered after the `since`th and everything has a receipt.
    pub fn is_settled(&self, since: u64) -> bool {
        let state = self.sync_state();
        state.enrolled && state.hellos > since && state.waiting == 0
    }

    // The connection.

    /// Notes what the link is doing, for `status`.
    pub fn set_link(&mut self, link: impl Into<String>) {
        self.link = link.into();
    }

    /// Notes why the connection ended, for `sync`.
    pub fn set_detail(&mut self, detail: Note) {
        self.detail = Some(detail);
    }

    /// Notes what went wrong on this machine, for `sync`.
    pub fn set_fault(&mut self, fault: Note) {
        self.fault = Some(fault);
    }

    /// The link is up: what to say first.
    ///
    /// # Errors
    /// The disk fails.
    pub fn connected(&mut self) -> Result<Step, Note> {
        self.mend()?;
        self.hello_wanted = false;
        self.identity.set_refusal(None)?;
        self.detail = None;
        self.unsent.clear();
        let nonce = draw_nonce()?;
        let asks = self.identity.code().is_some() || self.is_first_contact();
        let asking = asks.then(|| self.options.clock.steady());
        self.session = Some(Session { nonce, asking, introductions: 0, renewing: false });
        self.link = "connected".to_owned();
        if asks { Ok(self.ask()) } else { self.event(Event::Connected { nonce }) }
    }

    /// What a connection says that has to become known first.
    fn ask(&self) -> Step {
        match self.enrol_request() {
            Some(request) => Step::send([request]),
            // A newest grant is enough for a centre that knows us, and one that does not asks for more.
            None => {
                let nonce = self.session.map_or(0, |session| session.nonce);
                Step::send(self.introductions(&self.newest_grant(), nonce))
            }
        }
    }

    fn newest_grant(&self) -> Vec<SignedGrant> {
        self.identity.present().map_or_else(Vec::new, |context| self.identity.grants(&[context]))
    }

    fn enrol_request(&self) -> Option<Vec<u8>> {
        let (code, facility) = self.identity.code()?;
        let key = self.identity.key();
        let request = EnrolRequest {
            key: key.public(),
            code: code.number,
            secret: code.secret,
            facility,
            machine: self.options.machine.unwrap_or(0),
        };
        Some(request.seal(key))
    }

    fn event(&mut self, event: Event<'_>) -> Result<Step, Note> {
        let (now, steady) = (self.options.clock.now(), self.options.clock.steady());
        let Some(store) = &mut self.store else { return Ok(Step::default()) };
        match store.event(&mut self.identity, event, steady, now) {
            Ok(send) => Ok(Step::send(send)),
            Err(note) => {
                // The outbox is ahead of the disk now, whatever failed: only the disk is to be believed.
                if let Err(again) = self.reopen() {
                    tracing::warn!(note = %again, "the queue could not be opened again");
                }
                Err(note)
            }
        }
    }

    /// The link is down.
    ///
    /// # Errors
    /// The disk fails.
    pub fn disconnected(&mut self) -> Result<(), Note> {
        self.session = None;
        self.link = "offline".to_owned();
        self.event(Event::Disconnected)?;
        if self.route.end(self.hellos > self.hellos_before) {
            self.identity.set_broker(None)?;
        }
        self.tidy()
    }

    /// In how many ms [`Core::tick`] is due, if anything is in flight.
    pub fn tick_in(&self) -> Option<i64> {
        let at = match self.session?.asking {
            Some(asked_at) => asked_at.plus(self.options.config.receipt_timeout_ms),
            None => self.store.as_ref()?.outbox.wake_at()?,
        };
        Some(at.0.saturating_sub(self.options.clock.steady().0).max(0))
    }

    /// Time has passed, or reports were added.
    ///
    /// # Errors
    /// The disk fails.
    pub fn tick(&mut self) -> Result<Step, Note> {
        let Some(session) = self.session else { return Ok(Step::default()) };
        let Some(asked_at) = session.asking else {
            let unsent = std::mem::take(&mut self.unsent);
            let mut step = self.event(Event::Tick)?;
            step.send.splice(0..0, unsent);
            return Ok(step);
        };
        let now = self.options.clock.steady();
        if now < asked_at.plus(self.options.config.receipt_timeout_ms) {
            return Ok(Step::default());
        }
        // The broker may have had it while the centre was down.
        self.session = Some(Session { asking: Some(now), ..session });
        Ok(self.ask())
    }

    /// A message has come. What does not verify is left aside: it changes nothing.
    ///
    /// # Errors
    /// The disk fails.
    pub fn received(&mut self, message: &[u8]) -> Result<Step, Note> {
        let envelope = match Envelope::read(message) {
            Ok(envelope) if envelope.agent == self.identity.agent() => envelope,
            Ok(_) => return Ok(Step::default()),
            Err(error) => {
                tracing::warn!(%error, "a message that is none was left aside");
                return Ok(Step::default());
            }
        };
        match envelope.kind {
            Kind::Receipt => self.receipt(&envelope),
            Kind::Answer => self.answer(&envelope),
            // Notices are a later version's; nothing else comes down.
            kind => {
                tracing::debug!(?kind, "a message of another kind was left aside");
                Ok(Step::default())
            }
        }
    }

    fn receipt(&mut self, envelope: &Envelope<'_>) -> Result<Step, Note> {
        let Some(certificate) = self.identity.certificate() else { return Ok(Step::default()) };
        let receipt = match Receipt::open(envelope, &certificate.key) {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::warn!(%error, "a receipt that does not verify was left aside");
                return Ok(Step::default());
            }
        };
        let Some(session) = self.session else { return Ok(Step::default()) };
        let Some(store) = &mut self.store else { return Ok(Step::default()) };
        let was_answered = store.outbox.is_answered();
        let now = self.options.clock.now();
        // Only the answer to this connection's hello cannot be an old one played again.
        if receipt.answers == Some(session.nonce) {
            store.note_receipt(receipt.time, now)?;
        }
        let mut step = self.event(Event::Receipt(&receipt))?;
        if receipt.answers == Some(session.nonce) {
            step.send.extend(self.renewal(session, receipt.time));
        }
        let answered = self.store.as_ref().is_some_and(|store| store.outbox.is_answered());
        if answered && !was_answered {
            self.hellos += 1;
            self.fault = None;
            self.identity.set_refusal(None)?;
        }
        Ok(step)
    }

    fn answer(&mut self, envelope: &Envelope<'_>) -> Result<Step, Note> {
        let (answer, certificate, root) =
            match Answer::open_pinned(envelope, &self.identity.pinned()) {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::warn!(%error, "an answer that does not verify was left aside");
                    return Ok(Step::default());
                }
            };
        let Some(session) = self.session else { return Ok(Step::default()) };
        if !self.identity.trust(root, &certificate)? {
            tracing::warn!("an answer under an outdated key was left aside");
            return Ok(Step::default());
        }
        match answer {
            Answer::Granted { grant, catalogue } => {
                if !self.identity.accept(&grant, catalogue.as_deref())? {
                    tracing::warn!("a grant that is not for this agent, or lacks its catalogue");
                    return Ok(Step { hang_up: session.asking.is_some(), ..Step::default() });
                }
                self.open_store()?;
                if let Some(store) = &mut self.store {
                    store.granted(&mut self.identity)?;
                }
                // The certificate comes right behind, and what is to be said waits for it.
                if session.asking.is_some() && !self.is_first_contact() {
                    self.session = Some(Session { asking: None, ..session });
                    return self.event(Event::Connected { nonce: session.nonce });
                }
                Ok(Step::default())
            }
            Answer::NotEnrolled { refusal } => {
                self.identity.set_refusal(Some(refusal))?;
                Ok(Step::hang_up())
            }
            Answer::WhoAreYou { contexts } => self.introduce(session, &contexts),
            Answer::Certified { certificate, renew_from, expires } => {
                self.certified(Issued { renew_from, expires, certificate })
            }
            Answer::Elsewhere { address } => {
                if address.parse::<MqttAddress>().is_err() {
                    tracing::warn!(
                        address,
                        "the centre has named a broker whose address does not read"
                    );
                    return Ok(Step::default());
                }
                self.route.tell();
                self.identity.set_broker(Some(address))?;
                Ok(Step::default())
            }
        }
    }

    fn certified(&mut self, issued: Issued) -> Result<Step, Note> {
        let taken = self.take_certificate(issued)?;
        Ok(Step { again: taken && self.is_first_contact(), ..Step::default() })
    }

    /// Keeps a certificate for the connections to come; false if it is not for this agent.
    fn take_certificate(&mut self, issued: Issued) -> Result<bool, Note> {
        if !self.identity.set_issued(issued)? {
            tracing::warn!("a certificate that is not for this agent was left aside");
            return Ok(false);
        }
        (self.issued_refused, self.secured) = (false, None);
        Ok(true)
    }

    /// The introduction that asks for the next certificate, once a connection, when the centre's clock says
    /// that it is time.
    fn renewal(&mut self, session: Session, now: Millis) -> Vec<Vec<u8>> {
        let due = self.identity.issued().is_some_and(|issued| issued.renew_from <= now);
        if session.renewing || !due || self.proof != Some(Proof::Issued) {
            return Vec::new();
        }
        self.session = Some(Session { renewing: true, ..session });
        self.introductions(&self.newest_grant(), session.nonce)
    }

    fn introduce(&mut self, session: Session, contexts: &[u32]) -> Result<Step, Note> {
        let introductions = session.introductions + 1;
        if introductions > INTRODUCTIONS_MAX {
            return Ok(Step::hang_up());
        }
        self.session = Some(Session { introductions, ..session });
        let grants = self.identity.grants(contexts);
        if grants.is_empty() {
            return Ok(Step::send(self.enrol_request()));
        }
        let mut send = self.introductions(&grants, session.nonce);
        let again = self.event(Event::Introduced)?;
        send.extend(again.send);
        Ok(Step { send, ..again })
    }

    /// The grants in as few messages as the limit allows; none for none.
    fn introductions(&self, grants: &[SignedGrant], nonce: u64) -> Vec<Vec<u8>> {
        let mut send = Vec::new();
        let mut part: Vec<SignedGrant> = Vec::new();
        let mut bytes = 0;
        let seal =
            |grants: Vec<SignedGrant>| Introduction { grants, nonce }.seal(self.identity.key());
        for grant in grants {
            let size = banyan_shared::wire::encode(grant).len();
            if bytes + size > INTRODUCTION_BYTES_MAX && !part.is_empty() {
                send.push(seal(std::mem::take(&mut part)));
                bytes = 0;
            }
            bytes += size;
            part.push(grant.clone());
        }
        if !part.is_empty() {
            send.push(seal(part));
        }
        send
    }

    /// Why the centre refused this agent, if it did.
    pub fn refusal(&self) -> Option<EnrolRefusal> {
        self.identity.refusal()
    }
}

fn draw_nonce() -> Result<u64, Note> {
    let mut nonce = [0; 8];
    SystemRandom::new().fill(&mut nonce).map_err(|_| {
        note!(Error, "random", "系统无法提供随机数", "the system gives no random bytes")
    })?;
    Ok(u64::from_le_bytes(nonce))
}

/// What to say where nobody is enrolled.
pub(crate) fn not_enrolled() -> Note {
    note!(
        Error,
        "not_enrolled",
        "本机尚未注册：请先运行 banyan-agent enroll 注册码或注册文件",
        "this agent is not enrolled: run banyan-agent enroll CODE or FILE first"
    )
}

/// What to say when a running agent answers something else.
pub(crate) fn other_version() -> Note {
    note!(
        Error,
        "other_version",
        "正在运行的终端版本不同，请重新启动它",
        "the running agent is of another version: restart it"
    )
}

/// What to say while nothing was granted yet.
pub(crate) fn enrolment_open() -> Note {
    note!(
        Error,
        "enrolment_open",
        "注册尚未完成：请联网后再次运行 banyan-agent enroll，或向县级管理员索取注册文件",
        "the enrolment is not finished: run banyan-agent enroll again with a line, or ask the county desk \
         for an enrolment file"
    )
}
