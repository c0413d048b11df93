use proptest::prelude::*;

use super::*;

fn id(writer: u8, counter: u32, random: u32, seq: u64) -> VersionId {
    VersionId { writer: AgentId([writer; 6]), epoch: Epoch { counter, random }, seq }
}

fn version(id: VersionId, how: How, replaces: &[VersionId]) -> Version {
    Version { id, how, replaces: replaces.to_vec() }
}

#[test]
fn a_writers_later_version_replaces_its_earlier_one() {
    let (a, b) = (id(1, 1, 7, 1), id(1, 1, 7, 2));
    let versions = [version(b, How::Direct, &[]), version(a, How::Direct, &[])];
    assert_eq!(current(&versions, &Lineage::default()), Some((0, 1)));
}

#[test]
fn a_new_life_replaces_what_it_knew_of_and_a_twins_work_conflicts() {
    let old = version(id(1, 1, 7, 9), How::Direct, &[]);
    let unknown = version(id(1, 1, 7, 10), How::Direct, &[]);
    let new = version(id(1, 2, 3, 2), How::Direct, &[]);
    let mut lineage = Lineage::default();
    assert_eq!(heads(&[old.clone(), new.clone()], &lineage), [0, 1]);
    lineage.begins(new.id.writer, new.id.epoch, vec![(old.id.epoch, 9)]);
    assert_eq!(heads(&[old, new.clone()], &lineage), [1]);
    assert_eq!(heads(&[unknown, new], &lineage), [0, 1]);
}

#[test]
fn two_writers_conflict_until_one_names_the_other() {
    let own = version(id(1, 1, 0, 1), How::Direct, &[]);
    let proxy = version(id(2, 1, 0, 1), How::Proxy, &[]);
    assert_eq!(
        current(&[proxy.clone(), own.clone()], &Lineage::default()),
        Some((1, 2)),
        "own typed report first"
    );
    let resolved = version(id(2, 1, 0, 2), How::Proxy, &[own.id]);
    assert_eq!(current(&[proxy, own, resolved], &Lineage::default()), Some((2, 1)));
}

#[test]
fn ranks_follow_the_design() {
    let direct = version(id(9, 1, 0, 1), How::Direct, &[]);
    let filling = version(id(8, 1, 0, 1), How::Operator, &[]);
    let import = version(id(7, 1, 0, 1), How::Import, &[]);
    let fixing = version(id(1, 1, 0, 1), How::Operator, &[id(5, 1, 0, 1)]);
    let all = [direct, filling, import, fixing];
    assert_eq!(current(&all, &Lineage::default()).unwrap().0, 3);
    assert_eq!(current(&all[..3], &Lineage::default()).unwrap().0, 0);
    assert_eq!(current(&all[1..3], &Lineage::default()).unwrap().0, 1);
}

#[test]
fn what_is_written_at_the_centre_replaces_only_what_it_names() {
    let typed = version(id(9, 1, 0, 1), How::Direct, &[]);
    let file = version(id(9, 0, 5, 1), How::Direct, &[]);
    let fixing = version(id(9, 0, 5, 2), How::Operator, &[typed.id, file.id]);
    let again = version(id(9, 0, 5, 3), How::Import, &[file.id]);
    let lineage = Lineage::default();
    assert_eq!(
        current(&[file.clone(), typed.clone()], &lineage),
        Some((1, 2)),
        "a file never takes the place of what the facility typed, whatever it says"
    );
    let all = [typed, file, fixing, again];
    assert_eq!(current(&all[..3], &lineage), Some((2, 1)));
    assert_eq!(current(&all, &lineage), Some((2, 2)), "nor that of a correction");
}

#[test]
fn a_replaced_pc_keeps_the_history() {
    let old = version(id(1, 1, 0, 5), How::Direct, &[]);
    let new = version(id(2, 1, 0, 1), How::Direct, &[]);
    let mut lineage = Lineage::default();
    lineage.succeeds(AgentId([2; 6]), AgentId([1; 6]));
    assert_eq!(heads(&[old, new], &lineage), [1]);
}

#[test]
fn a_lock_admits_what_it_saw_and_what_was_approved() {
    let seen: VersionVector = [((AgentId([1; 6]), Epoch { counter: 1, random: 0 }), 3)].into();
    assert!(admitted(id(1, 1, 0, 3), Some(&seen), &[]));
    assert!(!admitted(id(1, 1, 0, 4), Some(&seen), &[]));
    assert!(admitted(id(1, 1, 0, 4), Some(&seen), &[id(1, 1, 0, 4)]));
    assert!(!admitted(id(2, 1, 0, 1), Some(&seen), &[]));
    assert!(admitted(id(2, 1, 0, 1), None, &[]));
}

fn any_version() -> impl Strategy<Value = Version> {
    let any_id = (1u8..4, 0u32..3, 0u32..2, 1u64..4).prop_map(|(w, c, r, s)| id(w, c, r, s));
    let how = prop::sample::select(How::ALL);
    (any_id.clone(), how, prop::collection::vec(any_id, 0..3))
        .prop_map(|(id, how, replaces)| Version { id, how, replaces })
}

/// [`heads`] by its definition, every version against every other.
fn heads_by_pairs(versions: &[Version], lineage: &Lineage) -> Vec<usize> {
    let replaced = |older: usize| {
        versions.iter().enumerate().any(|(newer, version)| {
            newer != older
                && replaces(version, &versions[older], lineage)
                && !replaces(&versions[older], version, lineage)
        })
    };
    let mut heads: Vec<usize> = (0..versions.len()).filter(|&at| !replaced(at)).collect();
    if heads.is_empty() {
        heads = (0..versions.len()).collect();
    }
    heads.sort_by_key(|&at| versions[at].id);
    heads
}

fn any_lineage() -> impl Strategy<Value = Lineage> {
    let life = (1u8..4, 0u32..3, 0u32..2);
    let earlier = prop::collection::vec(((0u32..3, 0u32..2), 0u64..4), 1..6);
    let succeeds = prop::collection::vec((1u8..4, 1u8..4), 0..3);
    (succeeds, prop::collection::vec((life, earlier), 0..12)).prop_map(|(succeeds, lives)| {
        let mut lineage = Lineage::default();
        for (newer, older) in succeeds {
            lineage.succeeds(AgentId([newer; 6]), AgentId([older; 6]));
        }
        for ((writer, counter, random), earlier) in lives {
            let epoch = |(counter, random)| Epoch { counter, random };
            let earlier = earlier.into_iter().map(|(of, issued)| (epoch(of), issued)).collect();
            lineage.begins(AgentId([writer; 6]), Epoch { counter, random }, earlier);
        }
        lineage
    })
}

#[test]
fn a_report_written_a_thousand_times_is_judged_in_no_time() {
    let versions: Vec<Version> =
        (1..=100_000).map(|seq| version(id(1, 1, 0, seq), How::Direct, &[])).collect();
    let since: Vec<u64> = (1..=100_000).collect();
    assert_eq!(current(&versions, &Lineage::default()), Some((99_999, 1)));
    let choices = choices(&versions, &since, &Lineage::default());
    assert_eq!(choices.len(), versions.len());
    // Pair by pair it would be ten thousand million looks, and that for each moment: it would not end.
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What stands and what is counted is told without comparing every pair: at the end and at every moment
    /// on the way, whatever names what and whoever knew of whom.
    #[test]
    fn what_stands_is_told_as_pair_by_pair(
        mut versions in prop::collection::vec(any_version(), 1..12),
        since in prop::collection::vec(0u8..6, 12),
        lineage in any_lineage(),
    ) {
        versions.sort_by_key(|v| v.id);
        versions.dedup_by_key(|v| v.id);
        prop_assert_eq!(heads(&versions, &lineage), heads_by_pairs(&versions, &lineage));
        let since = &since[..versions.len()];
        let choices = choices(&versions, since, &lineage);
        let mut moments = since.to_vec();
        moments.sort_unstable();
        moments.dedup();
        prop_assert_eq!(choices.iter().map(|c| c.since).collect::<Vec<_>>(), moments);
        for choice in choices {
            let known: Vec<usize> =
                (0..versions.len()).filter(|at| since[*at] <= choice.since).collect();
            let list: Vec<Version> = known.iter().map(|at| versions[*at].clone()).collect();
            let heads = heads_by_pairs(&list, &lineage);
            let best = heads.iter().copied().max_by_key(|at| rank(&list[*at])).unwrap();
            prop_assert_eq!((choice.at, choice.heads), (known[best], heads.len()));
        }
    }
}

proptest! {
    // The value is a function of the set: order of arrival plays no part, and something always stands.
    #[test]
    fn order_of_arrival_plays_no_part(
        mut versions in prop::collection::vec(any_version(), 1..8), turn in 0usize..8,
    ) {
        versions.sort_by_key(|v| v.id);
        versions.dedup_by_key(|v| v.id);
        let name = |versions: &[Version]| current(versions, &Lineage::default()).map(|(at, n)| (versions[at].id, n));
        let before = name(&versions);
        prop_assert!(before.is_some());
        let turn = turn % versions.len();
        versions.rotate_left(turn);
        prop_assert_eq!(before, name(&versions));
        versions.reverse();
        prop_assert_eq!(before, name(&versions));
    }
}
