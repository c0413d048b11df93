//! A batch: an agent's entries, column by column, and the hello of its connection.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::column::{Reader, Writer};
use super::{Envelope, Kind, WireError, deflate, encode, inflate, seal};
use crate::ids::{AgentId, ContextNumber, Epoch, Seq, VersionId};
use crate::keys::{SigningKey, sha256};
use crate::limits::{
    BATCH_BODY_BYTES_MAX, BATCH_ENTRIES_MAX, BATCH_VALUES_MAX, LIVES_MAX, PERSON_BYTES_MAX,
    REPLACES_MAX, REPORT_VALUES_MAX, VALUE_MAX,
};
use crate::period::{Period, PeriodType};
use crate::report::{Content, EnteredAt, How, Override, Reason, Value};

/// What an agent tells of itself at the start of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// Version of the program: major, minor, patch.
    pub version: (u8, u8, u8),
    /// Entries without a receipt.
    pub waiting: u32,
    /// Minute (since 1970) of the oldest of them, by the agent's clock.
    pub oldest_waiting: Option<u32>,
    /// Entries refused and not yet dealt with.
    pub refused: u32,
    /// The agent's clock, in minutes since 1970.
    pub clock_minute: u32,
    /// Whether the agent trusts that clock.
    pub clock_trusted: bool,
    /// Free disk space in MiB.
    pub free_disk_mib: u32,
    /// Code of the last error, 0 for none.
    pub last_error: u8,
}

/// The first batch of a connection carries it: "I am here, what do you hold of mine?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Drawn anew for every connection; the answering receipt repeats it.
    pub nonce: u64,
    /// How the agent is.
    pub beacon: Beacon,
    /// The newest operating key the agent knows, by [`PublicKey::tag`](crate::keys::PublicKey::tag); none
    /// while that is the root's first, so that a centre whose key was never replaced pays no byte for it.
    pub operating: Option<[u8; 4]>,
}

impl Hello {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = encode(&(self.nonce, &self.beacon));
        bytes.extend(self.operating.into_iter().flatten());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Hello, WireError> {
        let ((nonce, beacon), rest) = super::decode_first(bytes)?;
        let operating = match rest {
            [] => None,
            rest => Some(rest.try_into().map_err(|_| WireError::Trailing)?),
        };
        Ok(Hello { nonce, beacon, operating })
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A version of a report.
    Report {
        /// The facility, by its place in the context's list.
        facility: u32,
        /// The form, by its place in the catalogue.
        form: u16,
        /// The period.
        period: Period,
        /// What it says.
        content: Content,
    },
    /// Takes the place of an entry that was refused.
    Void,
    /// The first entry of every life but the first: what the machine knew of earlier ones.
    Begins {
        /// Each earlier life with the highest number known to be issued in it.
        earlier: Vec<(Epoch, Seq)>,
        /// Numbers lost with a damaged queue, as ranges, both ends included.
        lost: Vec<(Epoch, Seq, Seq)>,
    },
}

/// One numbered entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the batch's epoch.
    pub seq: Seq,
    /// What it says.
    pub body: Body,
}

/// The 64-bit hash of an entry; receipts carry sums of these. It covers everything the entry means:
/// who, which life and number, under which context, and what.
pub fn entry_hash(
    agent: AgentId,
    epoch: Epoch,
    seq: Seq,
    context: ContextNumber,
    body: &Body,
) -> u64 {
    let head = encode(&(epoch.counter, epoch.random, seq, context));
    let digest = sha256(&[b"banyan/v1/entry\0", &agent.0, &head, &encode(body)]);
    u64::from_le_bytes(digest[..8].try_into().expect("a slice of eight bytes is eight bytes"))
}

/// Entries of one agent, one life and one context, in rising order of number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who sends.
    pub agent: AgentId,
    /// In which life.
    pub epoch: Epoch,
    /// Under which context the entries are to be read.
    pub context: ContextNumber,
    /// The hello, in the first batch of a connection.
    pub hello: Option<Hello>,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// A batch and the hashes of its entries, worked out once for all who look at them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedBatch {
    batch: Batch,
    hashes: Vec<u64>,
}

impl From<Batch> for HashedBatch {
    fn from(batch: Batch) -> HashedBatch {
        let Batch { agent, epoch, context, entries, .. } = &batch;
        let hash = |entry: &Entry| entry_hash(*agent, *epoch, entry.seq, *context, &entry.body);
        let hashes = entries.iter().map(hash).collect();
        HashedBatch { batch, hashes }
    }
}

impl Deref for HashedBatch {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl HashedBatch {
    /// The entries, each with its [`entry_hash`].
    pub fn hashed(&self) -> impl Iterator<Item = (&Entry, u64)> {
        self.batch.entries.iter().zip(self.hashes.iter().copied())
    }

    /// The same, taken out.
    pub fn into_hashed(self) -> impl Iterator<Item = (Entry, u64)> {
        self.batch.entries.into_iter().zip(self.hashes)
    }
}

const FLAG_HELLO: u8 = 1;
const FLAG_COMPRESSED: u8 = 2;

/// Value columns: a number n is written as n + 2.
const CELL_MISSING: u64 = 0;
const CELL_NOT_APPLICABLE: u64 = 1;
const CELL_NUMBERS: u64 = 2;

impl Batch {
    /// Packs and signs the batch.
    pub fn seal(&self, key: &SigningKey) -> Vec<u8> {
        seal(Kind::Batch, self.agent, &self.body(), key)
    }

    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let inner = pack(&self.entries);
        // Bit-packed columns rarely shrink further; a wide hospital form's first lines may.
        let squeezed = if inner.len() >= 256 { deflate(&inner) } else { Vec::new() };
        let compressed = !squeezed.is_empty() && squeezed.len() < inner.len();
        let mut flags = 0;
        if self.hello.is_some() {
            flags |= FLAG_HELLO;
        }
        if compressed {
            flags |= FLAG_COMPRESSED;
        }
        writer.byte(flags);
        writer.varint(u64::from(self.epoch.counter));
        writer.bytes.extend_from_slice(&self.epoch.random.to_le_bytes());
        writer.varint(u64::from(self.context));
        if let Some(hello) = &self.hello {
            let hello = hello.to_bytes();
            writer.varint(hello.len().try_into().unwrap_or(u64::MAX));
            writer.bytes.extend_from_slice(&hello);
        }
        writer.bytes.extend_from_slice(if compressed { &squeezed } else { &inner });
        writer.bytes
    }

    /// Reads the body of an envelope of kind [`Kind::Batch`]. The signature is the caller's concern.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are not exactly one batch within the limits.
    pub fn read(envelope: &Envelope<'_>) -> Result<Batch, WireError> {
        if envelope.kind != Kind::Batch {
            return Err(WireError::Kind(envelope.kind as u8));
        }
        let mut reader = Reader { bytes: envelope.unverified_body() };
        let flags = reader.byte()?;
        if flags & !(FLAG_HELLO | FLAG_COMPRESSED) != 0 {
            return Err(WireError::Malformed("unknown flags"));
        }
        let number =
            |n: u64| u32::try_from(n).map_err(|_| WireError::Malformed("number too large"));
        let counter = number(reader.varint()?)?;
        if counter == 0 {
            return Err(WireError::Malformed("an agent's life is numbered from 1"));
        }
        let random = u32::from_le_bytes(reader.array()?);
        let context = number(reader.varint()?)?;
        let hello = if flags & FLAG_HELLO == 0 {
            None
        } else {
            let length = reader.bounded(256, "bytes in a hello")?;
            Some(Hello::from_bytes(reader.take(length)?)?)
        };
        let entries = if flags & FLAG_COMPRESSED == 0 {
            unpack(reader.bytes)?
        } else {
            unpack(&inflate(reader.bytes, BATCH_BODY_BYTES_MAX)?)?
        };
        Ok(Batch {
            agent: envelope.agent,
            epoch: Epoch { counter, random },
            context,
            hello,
            entries,
        })
    }
}

fn size(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// What of a report fits into one number: how, flags, which options are there.
fn traits_of(content: &Content) -> u64 {
    let how = How::ALL.iter().position(|how| *how == content.how).unwrap_or(0);
    let flag = |set: bool, bit: u32| u64::from(set) << bit;
    size(how)
        | flag(content.withdrawn, 4)
        | flag(content.entered_at.doubtful, 5)
        | flag(content.entered_by.is_some(), 6)
        | flag(content.reason.is_some(), 7)
        | flag(content.override_code.is_some(), 8)
        | flag(!content.replaces.is_empty(), 9)
}

/// A report as it is packed: facility, form, period, content.
type ReportRow<'a> = (u32, u16, Period, &'a Content);

/// Entries column by column, uncompressed and unsigned: the inside of a batch, also used by acts that hold
/// reports.
pub fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.varint(size(entries.len()));
    if entries.is_empty() {
        return writer.bytes;
    }
    let column = |writer: &mut Writer, of: &dyn Fn(&Entry) -> u64| {
        writer.column(&entries.iter().map(of).collect::<Vec<_>>());
    };
    column(&mut writer, &|entry| entry.seq);
    column(&mut writer, &|entry| match entry.body {
        Body::Report { .. } => 0,
        Body::Void => 1,
        Body::Begins { .. } => 2,
    });
    for entry in entries {
        if let Body::Begins { earlier, lost } = &entry.body {
            let bytes = encode(&(earlier, lost));
            writer.varint(size(bytes.len()));
            writer.bytes.extend_from_slice(&bytes);
        }
    }
    let reports: Vec<ReportRow<'_>> = entries
        .iter()
        .filter_map(|entry| match &entry.body {
            Body::Report { facility, form, period, content } => {
                Some((*facility, *form, *period, content))
            }
            _ => None,
        })
        .collect();
    let column = |writer: &mut Writer, of: &dyn Fn(&ReportRow<'_>) -> u64| {
        writer.column(&reports.iter().map(of).collect::<Vec<_>>());
    };
    column(&mut writer, &|r| u64::from(r.0));
    column(&mut writer, &|r| u64::from(r.1));
    column(&mut writer, &|r| r.2.kind() as u64);
    column(&mut writer, &|r| zigzag32(r.2.index()));
    column(&mut writer, &|r| u64::from(r.3.entered_at.minute));
    column(&mut writer, &|r| traits_of(r.3));
    let mut persons: Vec<&str> = reports.iter().filter_map(|r| r.3.entered_by.as_deref()).collect();
    let named = persons.clone();
    persons.sort_unstable();
    persons.dedup();
    if !persons.is_empty() {
        writer.varint(size(persons.len()));
        for person in &persons {
            writer.varint(size(person.len()));
            writer.bytes.extend_from_slice(person.as_bytes());
        }
        let place = |name: &&str| size(persons.binary_search(name).unwrap_or(0));
        writer.column(&named.iter().map(place).collect::<Vec<_>>());
    }
    for (.., content) in &reports {
        if let Some(reason) = content.reason {
            writer.varint(size(Reason::ALL.iter().position(|r| *r == reason).unwrap_or(0)));
        }
        if let Some(code) = content.override_code {
            writer.varint(size(Override::ALL.iter().position(|o| *o == code).unwrap_or(0)));
        }
        if !content.replaces.is_empty() {
            let bytes = encode(&content.replaces);
            writer.varint(size(bytes.len()));
            writer.bytes.extend_from_slice(&bytes);
        }
    }
    column(&mut writer, &|r| size(r.3.values.len()));
    for (_, rows) in by_shape(reports.iter().map(|r| (r.1, r.3.values.len()))) {
        pack_values(
            &mut writer,
            &rows.iter().map(|at| &*reports[*at].3.values).collect::<Vec<_>>(),
        );
    }
    writer.bytes
}

/// Reports with the same form and number of values share their columns. In order of first appearance.
fn by_shape(shapes: impl Iterator<Item = (u16, usize)>) -> Vec<((u16, usize), Vec<usize>)> {
    let mut groups: Vec<((u16, usize), Vec<usize>)> = Vec::new();
    for (at, shape) in shapes.enumerate() {
        match groups.iter_mut().find(|(known, _)| *known == shape) {
            Some((_, rows)) => rows.push(at),
            None => groups.push((shape, vec![at])),
        }
    }
    groups
}

fn cell(value: Value) -> u64 {
    match value {
        Value::Missing => CELL_MISSING,
        Value::NotApplicable => CELL_NOT_APPLICABLE,
        Value::Number(n) => n.min(VALUE_MAX) + CELL_NUMBERS,
    }
}

fn uncell(cell: u64) -> Result<Value, WireError> {
    match cell {
        CELL_MISSING => Ok(Value::Missing),
        CELL_NOT_APPLICABLE => Ok(Value::NotApplicable),
        n if n - CELL_NUMBERS <= VALUE_MAX => Ok(Value::Number(n - CELL_NUMBERS)),
        _ => Err(WireError::Malformed("a value is above 2^53 - 1")),
    }
}

/// A few rows are one run of values; many rows are a column a line.
const ROWS_FOR_COLUMNS: usize = 4;

fn pack_values(writer: &mut Writer, rows: &[&[Value]]) {
    let width = rows.first().map_or(0, |row| row.len());
    if rows.len() < ROWS_FOR_COLUMNS {
        let cells: Vec<u64> = rows.iter().flat_map(|row| row.iter().map(|v| cell(*v))).collect();
        writer.column(&cells);
    } else {
        for line in 0..width {
            writer.column(&rows.iter().map(|row| cell(row[line])).collect::<Vec<_>>());
        }
    }
}

fn zigzag32(n: i32) -> u64 {
    u64::from((n.cast_unsigned() << 1) ^ (n >> 31).cast_unsigned())
}

fn unzigzag32(n: u64) -> Option<i32> {
    let n = u32::try_from(n).ok()?;
    Some((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
}

/// Reads what [`pack`] made, within the limits of one batch.
///
/// # Errors
/// [`WireError`] if the bytes are not exactly such entries.
pub fn unpack(bytes: &[u8]) -> Result<Vec<Entry>, WireError> {
    let mut reader = Reader { bytes };
    let count = reader.bounded(BATCH_ENTRIES_MAX, "entries in a batch")?;
    let seqs = reader.column(count)?;
    if seqs.first() == Some(&0) || seqs.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(WireError::Malformed("entry numbers do not rise from 1"));
    }
    let kinds = reader.column(count)?;
    let mut bodies: Vec<Option<Body>> = Vec::with_capacity(count);
    for kind in &kinds {
        bodies.push(match kind {
            0 => None,
            1 => Some(Body::Void),
            2 => {
                let length = reader.bounded(64 * 1024, "bytes in a first entry")?;
                let (earlier, lost): (Vec<_>, Vec<_>) = super::decode(reader.take(length)?)?;
                if earlier.len() > LIVES_MAX || lost.len() > BATCH_ENTRIES_MAX {
                    return Err(WireError::TooMany { what: "earlier lives", max: LIVES_MAX });
                }
                Some(Body::Begins { earlier, lost })
            }
            _ => return Err(WireError::Malformed("unknown kind of entry")),
        });
    }
    let mut reports = unpack_reports(&mut reader, kinds.iter().filter(|kind| **kind == 0).count())?;
    if !reader.bytes.is_empty() {
        return Err(WireError::Trailing);
    }
    let mut next = reports.drain(..);
    let entries = seqs
        .into_iter()
        .zip(bodies)
        .filter_map(|(seq, body)| Some(Entry { seq, body: body.or_else(|| next.next())? }))
        .collect();
    Ok(entries)
}

fn unpack_reports(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Body>, WireError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let malformed = WireError::Malformed;
    let facilities = reader.column(count)?;
    let forms = reader.column(count)?;
    let types = reader.column(count)?;
    let indexes = reader.column(count)?;
    let minutes = reader.column(count)?;
    let traits = reader.column(count)?;
    if traits.iter().any(|t| t >> 10 != 0) {
        return Err(malformed("unknown traits of a report"));
    }
    let has = |t: u64, bit: u32| t >> bit & 1 == 1;
    let named = traits.iter().filter(|t| has(**t, 6)).count();
    let mut entered_by = Vec::new();
    if named > 0 {
        let persons = reader.bounded(named, "persons")?;
        let mut names = Vec::with_capacity(persons);
        for _ in 0..persons {
            let length = reader.bounded(PERSON_BYTES_MAX, "bytes in a staff code")?;
            let name = std::str::from_utf8(reader.take(length)?)
                .map_err(|_| malformed("a staff code is not text"))?;
            names.push(name.to_owned());
        }
        for place in reader.column(named)? {
            let place = usize::try_from(place).ok();
            let name = place.and_then(|place| names.get(place));
            entered_by.push(name.cloned().ok_or(malformed("a staff code is missing"))?);
        }
    }
    let mut entered_by = entered_by.into_iter();
    let mut contents = Vec::with_capacity(count);
    for (traits, minute) in traits.iter().zip(&minutes) {
        let reason = if has(*traits, 7) {
            let at = reader.bounded(Reason::ALL.len() - 1, "reasons")?;
            Some(Reason::ALL[at])
        } else {
            None
        };
        let override_code = if has(*traits, 8) {
            let at = reader.bounded(Override::ALL.len() - 1, "override codes")?;
            Some(Override::ALL[at])
        } else {
            None
        };
        let replaces: Vec<VersionId> = if has(*traits, 9) {
            let length = reader.bounded(REPLACES_MAX * 32, "bytes of replaced versions")?;
            super::decode(reader.take(length)?)?
        } else {
            Vec::new()
        };
        if replaces.len() > REPLACES_MAX || replaces.is_empty() == has(*traits, 9) {
            return Err(malformed("the replaced versions are too many or none"));
        }
        let how = usize::try_from(traits & 0xf).ok().and_then(|at| How::ALL.get(at));
        contents.push(Content {
            values: Vec::new(),
            how: *how.ok_or(malformed("unknown way of entry"))?,
            entered_by: if has(*traits, 6) { entered_by.next() } else { None },
            reason,
            override_code,
            withdrawn: has(*traits, 4),
            entered_at: EnteredAt {
                minute: u32::try_from(*minute).map_err(|_| malformed("entry time out of range"))?,
                doubtful: has(*traits, 5),
            },
            replaces,
        });
    }
    let lengths = reader.column(count)?;
    let mut shapes = Vec::with_capacity(count);
    let mut total = 0;
    for (form, length) in forms.iter().zip(&lengths) {
        let form = u16::try_from(*form).map_err(|_| malformed("form number out of range"))?;
        let length = usize::try_from(*length)
            .ok()
            .filter(|length| *length <= REPORT_VALUES_MAX)
            .ok_or(WireError::TooMany { what: "values in a report", max: REPORT_VALUES_MAX })?;
        total += length;
        shapes.push((form, length));
    }
    if total > BATCH_VALUES_MAX {
        return Err(WireError::TooMany { what: "values in a batch", max: BATCH_VALUES_MAX });
    }
    for ((_, width), rows) in by_shape(shapes.iter().copied()) {
        if rows.len() < ROWS_FOR_COLUMNS {
            let mut cells = reader.column(rows.len() * width)?.into_iter();
            for at in rows {
                contents[at].values =
                    cells.by_ref().take(width).map(uncell).collect::<Result<_, _>>()?;
            }
        } else {
            for _ in 0..width {
                for (at, cell) in rows.iter().zip(reader.column(rows.len())?) {
                    contents[*at].values.push(uncell(cell)?);
                }
            }
        }
    }
    let mut bodies = Vec::with_capacity(count);
    for (at, content) in contents.into_iter().enumerate() {
        let kind = usize::try_from(types[at]).ok().and_then(|t| PeriodType::ALL.get(t));
        let period = kind
            .zip(unzigzag32(indexes[at]))
            .and_then(|(kind, index)| Period::from_index(*kind, index))
            .ok_or(malformed("a period is out of range"))?;
        let facility =
            u32::try_from(facilities[at]).map_err(|_| malformed("facility number out of range"))?;
        bodies.push(Body::Report { facility, form: shapes[at].0, period, content });
    }
    Ok(bodies)
}
