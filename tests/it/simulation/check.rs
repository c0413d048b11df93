//! What must be true: after every step, and once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use banyan_shared::ids::VersionId;
use banyan_shared::report::{How, Lineage, Version, current, heads};
use banyan_shared::wire::Body;

use super::Broken;
use super::centre::{Centre, Held};
use super::machine::{content_of, register_of};
use super::model::{FUTURE, OUT_OF_SCOPE, Register};
use super::world::World;

macro_rules! ensure {
    ($what:expr, $($why:tt)*) => {
        if !$what {
            return Err(format!($($why)*));
        }
    };
}

/// After every step.
pub(super) fn safety(world: &World<'_>) -> Result<(), String> {
    let centre = &world.centre;
    for (at, machine) in world.machines.iter().enumerate() {
        // Once its hello of this generation of the ledger was answered, what a machine believes is held.
        let answered = machine.outbox.as_ref().is_some_and(|outbox| outbox.is_answered())
            && machine.since == centre.generation
            && !world.happened.silent;
        let mut contents = BTreeSet::new();
        for ((epoch, seq), kept) in &machine.disk.entries {
            let id = VersionId { writer: machine.id, epoch: *epoch, seq: *seq };
            if kept.confirmed {
                let held = centre.held.get(&id).is_some_and(|held| held.hash == kept.hash);
                ensure!(
                    held || !answered && centre.ever.contains(&(id, kept.hash)),
                    "machine {at} has let go of {id}, which the ledger does not hold"
                );
            }
            if let Some(no) = kept.content.filter(|_| !kept.copy) {
                ensure!(contents.insert(no), "machine {at} keeps report {no} under two numbers");
            }
        }
    }
    for (id, held) in &centre.held {
        ensure!(
            world.shared.issued.contains(&(*id, held.hash)),
            "nobody ever issued {id} as it is held"
        );
    }
    Ok(())
}

/// The versions held of each report.
type Versions<'a> = BTreeMap<Register, Vec<(VersionId, &'a Held)>>;

/// Accepted versions by register, and what their first entries say of lives.
pub(super) fn versions(centre: &Centre) -> (Versions<'_>, Lineage) {
    let mut registers: BTreeMap<Register, Vec<(VersionId, &Held)>> = BTreeMap::new();
    let mut lineage = Lineage::default();
    for (id, held) in &centre.held {
        if let Some(register) = register_of(&held.body) {
            registers.entry(register).or_default().push((*id, held));
        }
        if let Body::Begins { earlier, .. } = &held.body {
            lineage.begins(id.writer, id.epoch, earlier.clone());
        }
    }
    (registers, lineage)
}

pub(super) fn version(id: VersionId, held: &Held) -> Version {
    match &held.body {
        Body::Report { content, .. } => {
            Version { id, how: content.how, replaces: content.replaces.clone() }
        }
        _ => unreachable!("only reports have versions"),
    }
}

/// Which version is counted, and how many stand.
fn counted(held: &[(VersionId, &Held)], lineage: &Lineage, broken: Broken) -> (VersionId, usize) {
    let clock = |held: &Held| match &held.body {
        Body::Report { content, .. } => content.entered_at.minute,
        _ => 0,
    };
    match broken {
        Broken::ByArrival => (held.iter().max_by_key(|(_, held)| held.arrival).unwrap().0, 1),
        Broken::ByClock => (held.iter().max_by_key(|(_, held)| clock(held)).unwrap().0, 1),
        _ => {
            let versions: Vec<Version> = held.iter().map(|(id, held)| version(*id, held)).collect();
            let (at, standing) = current(&versions, lineage).unwrap();
            (versions[at].id, standing)
        }
    }
}

/// Once faults have stopped and everything has come to rest.
pub(super) fn rest(world: &mut World<'_>) -> Result<(), String> {
    world.centre.check_replay()?;
    let mut kept_somewhere = BTreeSet::new();
    // A ledger that lost entries and does not know it, and a twin that filled their numbers in a life
    // both have left: the one combination that no sum over a whole run can tell.
    let blind = world.happened.twin && world.happened.silent;
    for (at, machine) in world.machines.iter().enumerate() {
        for ((epoch, seq), kept) in &machine.disk.entries {
            let id = VersionId { writer: machine.id, epoch: *epoch, seq: *seq };
            let held = world.centre.held.get(&id);
            ensure!(
                kept.confirmed && (held.is_some_and(|held| held.hash == kept.hash) || blind),
                "machine {at}: {id} has not arrived: {kept:?}"
            );
            kept_somewhere.extend(kept.content);
            if let Some(no) = kept.content {
                let out = world.shared.model.typed[no].register.facility >= OUT_OF_SCOPE;
                // A refusal does not say of which content: replayed, it may hit a number used twice. The
                // person is shown it all the same.
                let refused = kept.refusal.is_some();
                ensure!(
                    out == refused || refused && world.happened.twin,
                    "report {no}: refused {:?}",
                    kept.refusal
                );
            }
            let shown = machine.disk.parked.contains_key(&(*epoch, *seq));
            let parked = super::centre::park_reason(&kept.body, world.centre.released).is_some();
            ensure!(
                // Two machines of one name hear parts of each other's answers.
                shown == parked || world.happened.twin,
                "machine {at}: {id} is parked: {parked}, shown as such: {shown}"
            );
        }
    }
    for (no, typed) in world.shared.model.typed.iter().enumerate() {
        ensure!(
            typed.lost || kept_somewhere.contains(&no),
            "report {no} was saved and is nowhere: {typed:?}"
        );
    }
    figures(world)
}

/// Every figure is the one of in-order delivery.
fn figures(world: &mut World<'_>) -> Result<(), String> {
    let happened = world.happened;
    let model = &world.shared.model;
    let (registers, lineage) = versions(&world.centre);
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut conflicts, mut parked) = (0, 0);
    for (register, held) in &registers {
        ensure!(register.facility < OUT_OF_SCOPE, "{register:?} was refused and is held");
        let contents: Vec<usize> =
            held.iter().map(|(_, held)| content_of(&held.body).unwrap()).collect();
        contents.iter().for_each(|no| *places.entry(*no).or_default() += 1);
        parked += u64::from(register.period >= FUTURE);
        let content = |id: VersionId| {
            let (_, held) =
                held.iter().find(|(held, _)| *held == id).expect("it was chosen among these");
            content_of(&held.body).unwrap()
        };
        let (id, standing) = counted(held, &lineage, world.broken);
        conflicts += u64::from(standing > 1);
        // Order of arrival plays no part.
        for _ in 0..2 {
            let mut shuffled = held.clone();
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, world.shared.rng.below(at + 1));
            }
            ensure!(
                counted(&shuffled, &lineage, world.broken) == (id, standing),
                "{register:?}: the figure depends on the order of arrival"
            );
        }
        let latest: BTreeSet<usize> = model.latest(&contents).into_iter().collect();
        let all: Vec<Version> = held.iter().map(|(id, held)| version(*id, held)).collect();
        let standing_now: Vec<VersionId> =
            heads(&all, &lineage).into_iter().map(|at| all[at].id).collect();
        let shown: BTreeSet<usize> = standing_now.iter().map(|id| content(*id)).collect();
        if happened.twin {
            // Two machines wrote under one name. What neither replaced stands and is flagged, except that
            // within a life they shared the higher number stands: nothing on the wire tells them apart.
            let overtaken = |no: usize| {
                held.iter().filter(|(_, held)| content_of(&held.body) == Some(no)).all(
                    |(older, _)| {
                        held.iter().any(|(newer, _)| {
                            newer.writer == older.writer
                                && newer.epoch == older.epoch
                                && newer.seq > older.seq
                        })
                    },
                )
            };
            // A new life of a queue set aside claims all numbers of the life before; a restored ledger may
            // have given a number to the other machine since someone named it.
            if !happened.quarantine && !happened.regress {
                for no in &latest {
                    ensure!(
                        shown.contains(no) || overtaken(*no),
                        "{register:?}: report {no} was replaced by one who never saw it"
                    );
                }
                // Of a copied disk each machine moves or repeats what it kept into a life of its own, where it stands
                // beside what the other has written since, in conflict.
                let typed = &model.typed[content(id)];
                let restated = standing > 1 && typed.moves + typed.copies > 0;
                let one_hand = held.iter().all(|(other, _)| other.writer == id.writer);
                ensure!(
                    latest.contains(&content(id)) || !one_hand || restated,
                    "{register:?}: an older value came back: {} instead of {latest:?}",
                    content(id)
                );
            }
        } else if contents.iter().any(|no| model.typed[*no].moves > 0)
            && latest.iter().any(|no| model.typed[*no].lost)
        {
            // A damaged queue lost the newest version, which had gone out, and moved an older one: the
            // machine no longer knows what came after it. What is counted is the one or the other.
            ensure!(
                latest.contains(&content(id))
                    || model.typed[content(id)].moves + model.typed[content(id)].copies > 0,
                "{register:?}: neither the newest nor what moved is counted: {id}"
            );
        } else {
            ensure!(
                shown == latest,
                "{register:?}: {shown:?} stand, in order it would be {latest:?}; held {:?}",
                held.iter().map(|(id, held)| (*id, content_of(&held.body))).collect::<Vec<_>>()
            );
            // The facility's own word first, then the greatest identity.
            let rank = |id: &VersionId| (model.typed[content(*id)].how == How::Direct, *id);
            let first = standing_now.iter().copied().max_by_key(rank).unwrap();
            ensure!(
                content(id) == content(first),
                "{register:?}: report {} is counted instead of {}",
                content(id),
                content(first)
            );
        }
    }
    for (no, count) in &places {
        let typed = &model.typed[*no];
        let moved = if happened.twin || happened.regress { typed.moves } else { 0 };
        ensure!(*count <= 1 + typed.copies + moved, "report {no} is held {count} times: {typed:?}");
    }
    world.note("conflicts", conflicts);
    world.note("parked reports", parked);
    Ok(())
}
