//! Who this agent is: its key, whom it trusts, for whom it may report, under which catalogue.
//!
//! Everything here is a small file in the data directory, written so that a power cut leaves the old or the
//! new content, and apart from the queue, so that damage to one does not touch the other:
//! `agent.key` (PKCS#8, owner only), `agent.crt` (the centre's certificate over that key), `identity.json` (owner only: it holds the enrolment code),
//! `contexts/N` (what context N means, with its grant; kept for ever), `catalogues/HASH.toml`. `lock` is held
//! by whoever may change any of it.
//!
//! What waits is delivered without its context: the centre knows what its number means. So a context or a
//! catalogue that is damaged or gone stops nothing but recording under it. Work goes on under the newest one
//! that reads, to which the centre sends a newer one; if none does, a new code or file brings one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banyan_shared::catalogue::{Catalogue, CatalogueHash, FormIx, KindIx, Lang};
use banyan_shared::ids::{AgentId, ContextNumber, Epoch, Millis, UnitCode};
use banyan_shared::input::{Enrolled, Reporters as _, Standing};
use banyan_shared::keys::{Certificate, PublicKey, SigningKey, sha256};
use banyan_shared::limits::CATALOGUE_BYTES_MAX;
use banyan_shared::period::Period;
use banyan_shared::wire::{
    self, EnrolCode, EnrolRefusal, EnrolmentFile, FacilityScope, Grant, Offer, SignedGrant,
};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::note::{Note, note};
use crate::tls;

const KEY_FILE: &str = "agent.key";
const ISSUED_FILE: &str = "agent.crt";
const IDENTITY_FILE: &str = "identity.json";
const CONTEXTS: &str = "contexts";
/// What a damaged context's file is called from then on.
const DAMAGED: &str = "damaged";
const LOCK_FILE: &str = "lock";
/// How long a process that has just ended is given to let go of the directory.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(20);
const CATALOGUES: &str = "catalogues";
/// Largest of the small files, in bytes.
const SMALL_FILE_BYTES_MAX: u64 = 4 << 20;
/// Most contexts one agent holds: a scope changes a few times a year.
pub const CONTEXTS_MAX: usize = 4096;

/// What `identity.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct IdentityFile {
    version: u8,
    /// The centre's MQTT address.
    address: String,
    /// The broker the centre has told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broker: Option<String>,
    /// The root's fingerprint, from the code or file.
    pinned: [u8; 16],
    root: Option<PublicKey>,
    certificate: Option<Certificate>,
    /// The code to show, until a grant answers it.
    code: Option<String>,
    /// The facility picked from a stick.
    facility: Option<UnitCode>,
    machine: Option<u64>,
    /// The newest life of the queue's numbering.
    epoch: Option<Epoch>,
    /// Why the centre does not want us, if it said so last.
    refusal: Option<EnrolRefusal>,
    /// When this agent was first granted another one's history, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    succession: Option<Millis>,
}

/// The certificate the centre issued over the agent's key, as kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// From when on, by the centre's clock, to ask for the next one.
    pub renew_from: Millis,
    /// When it expires.
    pub expires: Millis,
    /// X.509 in DER.
    pub certificate: Vec<u8>,
}

/// What a context means, as kept on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ContextFile {
    offer: Offer,
    grant: Option<SignedGrant>,
    issued_at: Millis,
}

/// A context with its catalogue.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its number.
    pub number: ContextNumber,
    /// For whom it lets this agent report; the first is the home.
    pub facilities: Arc<[FacilityScope]>,
    /// Its catalogue.
    pub catalogue: Arc<Catalogue>,
}

impl Context {
    /// The place of a facility in the context's list.
    pub fn facility(&self, code: &str) -> Option<(u32, &FacilityScope)> {
        let at = self.facilities.iter().position(|facility| facility.code == code)?;
        Some((u32::try_from(at).ok()?, &self.facilities[at]))
    }

    /// The home facility.
    pub fn home(&self) -> &FacilityScope {
        // An offer without a facility is not read.
        &self.facilities[0]
    }

    /// What a facility of this context is for `period`.
    pub fn standing(&self, facility: &FacilityScope, period: Period) -> Option<Standing> {
        let only = std::slice::from_ref(facility);
        Enrolled::new(only).standing(&self.catalogue, facility.code.as_str(), period)
    }

    /// The forms a kind of unit reports.
    pub fn forms_of(&self, kind: KindIx) -> impl Iterator<Item = FormIx> + '_ {
        (0u16..)
            .zip(&self.catalogue.forms)
            .filter(move |(_, form)| form.kinds.contains(&kind))
            .map(|(at, _)| FormIx(at))
    }
}

/// The identity in a data directory.
#[derive(Debug)]
pub struct Identity {
    dir: PathBuf,
    key: SigningKey,
    file: IdentityFile,
    issued: Option<Issued>,
    contexts: BTreeMap<ContextNumber, ContextFile>,
    /// Contexts whose file was damaged.
    lost: BTreeSet<ContextNumber>,
    /// Contexts that do not read, or whose catalogue does not, since the start.
    unreadable: BTreeSet<ContextNumber>,
    loaded: BTreeMap<ContextNumber, Context>,
}

fn io_note(path: &Path, error: &std::io::Error) -> Note {
    let path = path.display();
    note!(
        Error,
        "file",
        "{path}：{error}，请检查磁盘和权限",
        "{path}: {error}; check the disk and the permissions"
    )
}

fn damaged(path: &Path, why: &str) -> Note {
    let path = path.display();
    note!(
        Error,
        "identity_damaged",
        "{path}：文件损坏（{why}），请用备份恢复或重新注册到空目录",
        "{path}: the file is damaged ({why}); restore it or enrol into an empty directory"
    )
}

fn no_catalogue(path: &Path, why: &str) -> Note {
    let path = path.display();
    note!(
        Error,
        "catalogue_damaged",
        "{path}：目录文件损坏（{why}），暂不能录入，已录入的照常上报；请联网，仍不行则用新注册码再次运行 \
         banyan-agent enroll",
        "{path}: the catalogue's file is damaged ({why}). Nothing can be recorded, what was recorded is \
         delivered all the same; connect, and if that does not help run banyan-agent enroll with a new code"
    )
}

/// A data directory that nobody else changes, until this is dropped.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Locks `dir`, which is made if it is not there.
    ///
    /// Errors: another process has it (code `locked`), or the disk fails.
    pub(crate) fn take(dir: &Path) -> Result<DirLock, Note> {
        let path = dir.join(LOCK_FILE);
        let failed = |error: std::io::Error| io_note(&path, &error);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(DirLock { _file: file }),
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    let shown = dir.display();
                    return Err(note!(
                        Error,
                        "locked",
                        "{shown}：另一个程序正在使用此数据目录，请使用正在运行的服务，或先停止它",
                        "{shown}: another process uses this data directory; use the running service, or \
                         stop it"
                    ));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

fn taken(dir: &Path) -> Note {
    let shown = dir.display();
    note!(
        Error,
        "already_enrolled",
        "{shown} 中已有终端身份或数据，不能重新注册；如需另设终端，请用 --data-dir 指定一个空目录",
        "{shown} already holds an agent's identity or data and is not enrolled again; for another \
         agent, name an empty directory with --data-dir"
    )
}

impl Identity {
    /// Whether nothing that belongs to an agent is in `dir`. A key alone belongs to nobody: the power went
    /// during the first enrolment.
    pub fn is_vacant(dir: &Path) -> bool {
        ![IDENTITY_FILE, CONTEXTS, "queue"].iter().any(|name| dir.join(name).exists())
    }

    /// The identity in `dir`; none if there is none.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn open(dir: &Path) -> Result<Option<Identity>, Note> {
        let path = dir.join(IDENTITY_FILE);
        let Some(bytes) =
            files::read(&path, SMALL_FILE_BYTES_MAX).map_err(|error| io_note(&path, &error))?
        else {
            return Ok(None);
        };
        let file: IdentityFile =
            serde_json::from_slice(&bytes).map_err(|error| damaged(&path, &error.to_string()))?;
        if file.version != 1 {
            return Err(damaged(&path, "unknown version"));
        }
        let key_path = dir.join(KEY_FILE);
        let pkcs8 = files::read(&key_path, SMALL_FILE_BYTES_MAX)
            .map_err(|error| io_note(&key_path, &error))?
            .ok_or_else(|| damaged(&key_path, "missing"))?;
        let key = SigningKey::from_pkcs8(&pkcs8)
            .map_err(|error| damaged(&key_path, &error.to_string()))?;
        let mut identity = Identity {
            dir: dir.to_owned(),
            key,
            file,
            issued: None,
            contexts: BTreeMap::new(),
            lost: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            loaded: BTreeMap::new(),
        };
        identity.read_issued()?;
        identity.read_contexts()?;
        // Until one reads: what does not is passed over from then on.
        while let Some(number) = identity.readable() {
            if identity.context(number).is_ok() {
                break;
            }
        }
        Ok(Some(identity))
    }

    /// A damaged certificate is as none: the centre issues another.
    fn read_issued(&mut self) -> Result<(), Note> {
        let path = self.dir.join(ISSUED_FILE);
        let bytes =
            files::read(&path, SMALL_FILE_BYTES_MAX).map_err(|error| io_note(&path, &error))?;
        let Some(bytes) = bytes else { return Ok(()) };
        self.issued = match bytes.split_first() {
            Some((1, body)) => wire::decode(body).ok().filter(|issued| self.is_ours(issued)),
            _ => None,
        };
        if self.issued.is_none() {
            tracing::warn!(path = %path.display(), "the certificate is damaged and left aside");
        }
        Ok(())
    }

    fn is_ours(&self, issued: &Issued) -> bool {
        tls::is_over(&issued.certificate, &self.key.public())
    }

    fn read_contexts(&mut self) -> Result<(), Note> {
        let dir = self.dir.join(CONTEXTS);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_note(&dir, &error)),
        };
        let mut damages = Vec::new();
        for entry in entries.take(CONTEXTS_MAX * 2) {
            let path = entry.map_err(|error| io_note(&dir, &error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some((number, DAMAGED)) = name.split_once('.') {
                self.lost.extend(number.parse::<ContextNumber>());
            }
            let Ok(number) = name.parse::<ContextNumber>() else { continue };
            let bytes = match files::read(&path, SMALL_FILE_BYTES_MAX) {
                Ok(bytes) => bytes.unwrap_or_default(),
                // It may be whole, and stays where it is.
                Err(error) => {
                    tracing::warn!(note = %io_note(&path, &error), "a context does not read");
                    self.unreadable.insert(number);
                    continue;
                }
            };
            let file: Result<ContextFile, String> = match bytes.split_first() {
                Some((1, body)) => wire::decode(body).map_err(|error| error.to_string()),
                _ => Err("unknown version".to_owned()),
            };
            match file {
                Ok(file) if !file.offer.facilities.is_empty() => {
                    self.contexts.insert(number, file);
                }
                Ok(_) => damages.push((number, damaged(&path, "no facility"), path)),
                Err(why) => damages.push((number, damaged(&path, &why), path)),
            }
        }
        for (number, note, path) in damages {
            tracing::warn!(%note, "a damaged context was set aside");
            let aside = path.with_extension(DAMAGED);
            std::fs::rename(&path, &aside).map_err(|error| io_note(&aside, &error))?;
            self.lost.insert(number);
        }
        Ok(())
    }

    /// Whether nobody knows here what the context means: its file or its catalogue is damaged or gone.
    pub fn is_lost(&self, number: ContextNumber) -> bool {
        !self.contexts.contains_key(&number) || self.unreadable.contains(&number)
    }

    /// The number to speak under: that of the present context; where none is left, the highest there was.
    pub fn spoken(&self) -> Option<ContextNumber> {
        self.present().or_else(|| self.lost.union(&self.unreadable).max().copied())
    }

    fn is_granted(&self) -> bool {
        self.contexts.values().any(|context| context.grant.is_some())
    }

    /// Whether the centre has said that only a new code helps, and none has been answered by a grant since.
    fn needs_code(&self) -> bool {
        let refusals = [EnrolRefusal::Lapsed, EnrolRefusal::OutdatedGrant];
        let refused = self.file.refusal.is_some_and(|refusal| refusals.contains(&refusal));
        refused || self.file.code.is_some()
    }

    /// A new identity that has only a code to show: nothing can be recorded before the first contact. One
    /// that was never granted anything, that the centre lets in by a new code only, or of which no context
    /// reads any more, goes on with that and the same key, and with what was recorded by it if the code is of
    /// the same centre.
    ///
    /// # Errors
    /// The directory is in use (code `locked`) or another agent's, or cannot be written.
    pub fn begin(
        dir: &Path,
        code: &EnrolCode,
        facility: Option<UnitCode>,
    ) -> Result<Identity, Note> {
        let goes_on = |known: &Identity| {
            let open = !known.is_granted() || known.needs_code() || known.readable().is_none();
            known.contexts.is_empty() || (open && known.file.pinned == code.root)
        };
        // Said even while another process is at work there.
        Identity::resumable(dir, goes_on)?;
        let _lock = DirLock::take(dir)?;
        Identity::begin_locked(dir, code, facility, goes_on)
    }

    /// The identity in `dir` if an enrolment goes on with it; none if there is nothing.
    fn resumable(
        dir: &Path,
        goes_on: impl Fn(&Identity) -> bool,
    ) -> Result<Option<Identity>, Note> {
        match Identity::open(dir)? {
            Some(known) if goes_on(&known) => Ok(Some(known)),
            None if Identity::is_vacant(dir) => Ok(None),
            _ => Err(taken(dir)),
        }
    }

    fn begin_locked(
        dir: &Path,
        code: &EnrolCode,
        facility: Option<UnitCode>,
        goes_on: impl Fn(&Identity) -> bool,
    ) -> Result<Identity, Note> {
        if let Some(mut known) = Identity::resumable(dir, goes_on)? {
            // An enrolment that never got its answer goes on with the same key: the centre may have
            // granted it already.
            known.file.address.clone_from(&code.address);
            known.file.broker = None;
            if known.contexts.is_empty() {
                // What is known of the operating key is kept: an older one does not come back by a new code.
                if known.file.pinned != code.root {
                    (known.file.root, known.file.certificate) = (None, None);
                }
                known.file.facility = facility;
            } else {
                // Reports of the facility picked before may wait.
                known.file.facility = facility.or(known.file.facility);
            }
            known.file.pinned = code.root;
            known.file.refusal = None;
            known.file.code = Some(code.to_string());
            known.save()?;
            return Ok(known);
        }
        let path = dir.join(KEY_FILE);
        let found = files::read(&path, SMALL_FILE_BYTES_MAX)
            .map_err(|error| io_note(&path, &error))?
            .and_then(|pkcs8| SigningKey::from_pkcs8(&pkcs8).ok());
        let key = match found {
            Some(key) => key,
            None => SigningKey::generate(&SystemRandom::new()).map_err(|error| {
                note!(Error, "random", "系统无法提供随机数：{error}", "{error}")
            })?,
        };
        let identity = Identity {
            dir: dir.to_owned(),
            key,
            file: IdentityFile {
                version: 1,
                address: code.address.clone(),
                broker: None,
                pinned: code.root,
                root: None,
                certificate: None,
                code: Some(code.to_string()),
                facility,
                machine: None,
                epoch: None,
                refusal: None,
                succession: None,
            },
            issued: None,
            contexts: BTreeMap::new(),
            lost: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            loaded: BTreeMap::new(),
        };
        files::write(&path, identity.key.pkcs8(), true).map_err(|error| io_note(&path, &error))?;
        identity.save()?;
        Ok(identity)
    }

    /// A new identity from an enrolment file: recording can begin at once.
    ///
    /// # Errors
    /// The directory is not empty or cannot be written, or the file's catalogue is damaged.
    pub fn from_file(dir: &Path, file: &EnrolmentFile, offer: &Offer) -> Result<Identity, Note> {
        let toml = file.catalogue_toml().map_err(|error| {
            note!(
                Error,
                "file_damaged",
                "注册文件损坏：{error}",
                "the enrolment file is damaged: {error}"
            )
        })?;
        let picked = (file.offers.len() > 1).then(|| offer.facilities[0].code.clone());
        check_catalogue(&toml)?;
        let goes_on = |known: &Identity| known.contexts.is_empty();
        Identity::resumable(dir, goes_on)?;
        let _lock = DirLock::take(dir)?;
        let mut identity = Identity::begin_locked(dir, &file.code, picked, goes_on)?;
        // False if a later one is known; the file's offers stand all the same.
        identity.trust(file.root, &file.certificate)?;
        identity.put_catalogue(&toml)?;
        identity.put_context(ContextFile {
            offer: offer.clone(),
            grant: None,
            issued_at: Millis(0),
        })?;
        Ok(identity)
    }

    fn save(&self) -> Result<(), Note> {
        let path = self.dir.join(IDENTITY_FILE);
        let bytes =
            serde_json::to_vec_pretty(&self.file).expect("an identity is plain numbers and texts");
        files::write(&path, &bytes, true).map_err(|error| io_note(&path, &error))
    }

    fn put_catalogue(&mut self, toml: &[u8]) -> Result<(), Note> {
        let hash = CatalogueHash(sha256(&[toml]));
        let path = self.dir.join(CATALOGUES).join(format!("{hash}.toml"));
        files::write(&path, toml, false).map_err(|error| io_note(&path, &error))?;
        let contexts = &self.contexts;
        self.unreadable.retain(|number| {
            contexts.get(number).is_none_or(|context| context.offer.catalogue != hash)
        });
        Ok(())
    }

    fn put_context(&mut self, context: ContextFile) -> Result<(), Note> {
        let number = context.offer.context;
        let path = self.dir.join(CONTEXTS).join(number.to_string());
        let bytes = [&[1], wire::encode(&context).as_slice()].concat();
        files::write(&path, &bytes, false).map_err(|error| io_note(&path, &error))?;
        self.contexts.insert(number, context);
        self.loaded.remove(&number);
        self.unreadable.remove(&number);
        Ok(())
    }

    /// The certificate the centre issued, if there is one.
    pub fn issued(&self) -> Option<&Issued> {
        self.issued.as_ref()
    }

    /// Keeps a certificate the centre issued; false if it is not over this agent's key.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_issued(&mut self, issued: Issued) -> Result<bool, Note> {
        if !self.is_ours(&issued) {
            return Ok(false);
        }
        let path = self.dir.join(ISSUED_FILE);
        let bytes = [&[1], wire::encode(&issued).as_slice()].concat();
        files::write(&path, &bytes, false).map_err(|error| io_note(&path, &error))?;
        self.issued = Some(issued);
        Ok(true)
    }

    /// The agent's id.
    pub fn agent(&self) -> AgentId {
        self.key.public().agent_id()
    }

    /// The agent's key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The centre's address.
    pub fn address(&self) -> &str {
        &self.file.address
    }

    /// The broker the centre has told of, if it has.
    pub fn broker(&self) -> Option<&str> {
        self.file.broker.as_deref()
    }

    /// Keeps or forgets the broker.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_broker(&mut self, broker: Option<String>) -> Result<(), Note> {
        if self.file.broker == broker {
            return Ok(());
        }
        self.file.broker = broker;
        self.save()
    }

    /// The pinned root's fingerprint.
    pub fn pinned(&self) -> [u8; 16] {
        self.file.pinned
    }

    /// The operating key in force, as far as known.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.file.certificate.as_ref()
    }

    /// The code to show and the facility picked, until it is answered by a grant.
    pub fn code(&self) -> Option<(EnrolCode, Option<UnitCode>)> {
        let code = self.file.code.as_ref()?.parse().ok()?;
        Some((code, self.file.facility.clone()))
    }

    /// Why the centre refused us last, if it did.
    pub fn refusal(&self) -> Option<EnrolRefusal> {
        self.file.refusal
    }

    /// When this agent took over the history of another one, by the centre's clock; none if it did not.
    pub fn succession(&self) -> Option<Millis> {
        self.file.succession
    }

    /// Keeps or clears the centre's refusal.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_refusal(&mut self, refusal: Option<EnrolRefusal>) -> Result<(), Note> {
        if self.file.refusal == refusal {
            return Ok(());
        }
        self.file.refusal = refusal;
        self.save()
    }

    /// The machine this identity was last used on, and the newest life of its numbering.
    pub fn used(&self) -> (Option<u64>, Option<Epoch>) {
        (self.file.machine, self.file.epoch)
    }

    /// Notes the machine and the newest life.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_used(&mut self, machine: Option<u64>, epoch: Epoch) -> Result<(), Note> {
        let machine = machine.or(self.file.machine);
        if (self.file.machine, self.file.epoch) == (machine, Some(epoch)) {
            return Ok(());
        }
        (self.file.machine, self.file.epoch) = (machine, Some(epoch));
        self.save()
    }

    /// Notes the root and the operating key's certificate, which the caller has verified; an older
    /// certificate than the known one is left aside, which is false.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn trust(&mut self, root: PublicKey, certificate: &Certificate) -> Result<bool, Note> {
        let known = self.file.certificate.as_ref();
        if known.is_some_and(|known| known.rank() > certificate.rank()) {
            return Ok(false);
        }
        if known != Some(certificate) || self.file.root != Some(root) {
            self.file.root = Some(root);
            self.file.certificate = Some(certificate.clone());
            self.save()?;
        }
        Ok(true)
    }

    /// Keeps a grant that goes back to the pinned root, with its catalogue if it brought one. False if it
    /// is another agent's or its catalogue is unknown.
    ///
    /// # Errors
    /// A file cannot be written, or the catalogue is damaged.
    pub fn accept(&mut self, grant: &SignedGrant, catalogue: Option<&[u8]>) -> Result<bool, Note> {
        let Some(root) = self.file.root else { return Ok(false) };
        let Ok(Grant { key, offer, issued_at, succeeds }) = grant.open(&root) else {
            return Ok(false);
        };
        if key != self.key.public() {
            return Ok(false);
        }
        if let Some(packed) = catalogue {
            let toml = wire::inflate(packed, CATALOGUE_BYTES_MAX).map_err(|error| {
                note!(
                    Error,
                    "catalogue_damaged",
                    "目录损坏：{error}",
                    "the catalogue is damaged: {error}"
                )
            })?;
            if CatalogueHash(sha256(&[&toml])) == offer.catalogue {
                check_catalogue(&toml)?;
                self.put_catalogue(&toml)?;
            }
        }
        if let Err(note) = self.read_catalogue(offer.catalogue) {
            tracing::warn!(%note, "a grant came without the catalogue it is under");
            return Ok(false);
        }
        // Before it reports under the grant: what the other agent reported is not held here.
        if succeeds.is_some() && self.file.succession.is_none_or(|known| issued_at < known) {
            self.file.succession = Some(issued_at);
            self.save()?;
        }
        let known = self.contexts.get(&offer.context);
        let newer = known.is_none_or(|c| c.grant.is_none() || c.issued_at <= issued_at);
        if newer {
            self.put_context(ContextFile { offer, grant: Some(grant.clone()), issued_at })?;
        }
        if self.file.code.is_some() || self.file.refusal.is_some() {
            (self.file.code, self.file.refusal) = (None, None);
            self.save()?;
        }
        Ok(true)
    }

    /// Every grant held, or those of the contexts named.
    pub fn grants(&self, contexts: &[ContextNumber]) -> Vec<SignedGrant> {
        let wanted = |number: &ContextNumber| contexts.is_empty() || contexts.contains(number);
        self.contexts
            .iter()
            .filter(|(number, _)| wanted(number))
            .filter_map(|(_, context)| context.grant.clone())
            .collect()
    }

    /// The number of the context that new reports are made under: the one granted last, of those that read
    /// if any does.
    pub fn present(&self) -> Option<ContextNumber> {
        self.readable().or_else(|| self.newest(|_| true))
    }

    fn readable(&self) -> Option<ContextNumber> {
        self.newest(|number| !self.unreadable.contains(&number))
    }

    fn newest(&self, fits: impl Fn(ContextNumber) -> bool) -> Option<ContextNumber> {
        self.contexts
            .iter()
            .filter(|(number, _)| fits(**number))
            .max_by_key(|(number, context)| (context.issued_at, **number))
            .map(|(number, _)| *number)
    }

    /// The bytes of a catalogue, whole.
    fn read_catalogue(&self, hash: CatalogueHash) -> Result<Vec<u8>, Note> {
        let path = self.dir.join(CATALOGUES).join(format!("{hash}.toml"));
        let toml = files::read(&path, SMALL_FILE_BYTES_MAX)
            .map_err(|error| io_note(&path, &error))?
            .ok_or_else(|| no_catalogue(&path, "missing"))?;
        if CatalogueHash(sha256(&[&toml])) != hash {
            return Err(no_catalogue(&path, "another content than its name says"));
        }
        Ok(toml)
    }

    /// A context with its catalogue.
    ///
    /// # Errors
    /// It is not known, or its catalogue is missing or damaged; from then on it counts as lost.
    pub fn context(&mut self, number: ContextNumber) -> Result<Context, Note> {
        if let Some(context) = self.loaded.get(&number) {
            return Ok(context.clone());
        }
        let loaded = self.load(number);
        match &loaded {
            Ok(_) => {
                self.unreadable.remove(&number);
            }
            Err(note) if self.unreadable.insert(number) => {
                tracing::warn!(%note, context = number, "a context does not read");
            }
            Err(_) => {}
        }
        loaded
    }

    fn load(&mut self, number: ContextNumber) -> Result<Context, Note> {
        let file = self.contexts.get(&number).ok_or_else(|| {
            note!(
                Error,
                "no_context",
                "不认识的上下文{number}",
                "context {number} is not known here"
            )
        })?;
        let hash = file.offer.catalogue;
        let same = self.loaded.values().find(|context| context.catalogue.hash == hash);
        let catalogue = match same {
            Some(context) => context.catalogue.clone(),
            None => Arc::new(check_catalogue(&self.read_catalogue(hash)?)?),
        };
        let context =
            Context { number, facilities: file.offer.facilities.clone().into(), catalogue };
        self.loaded.insert(number, context.clone());
        Ok(context)
    }
}

fn check_catalogue(toml: &[u8]) -> Result<Catalogue, Note> {
    Catalogue::load(toml).map_err(|errors| {
        let of = |lang| errors.first().map(|error| error.text(lang)).unwrap_or_default();
        let (zh, en) = (of(Lang::Zh), of(Lang::En));
        note!(
            Error,
            "catalogue_damaged",
            "本程序读不懂该目录，请升级程序：{zh}",
            "this program cannot read the catalogue, update it: {en}"
        )
    })
}
