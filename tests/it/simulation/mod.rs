//! The real machines of delivery against a model, run by run from a seed.
//!
//! One to three clinics with real outboxes over a modelled disk, a centre with real inboxes over a modelled
//! ledger, real signed bytes between them, and a network, sticks, disks and people that do their worst. After every
//! step nothing may be released that no ledger held; once the faults stop, every report saved and not lost
//! with a disk is held once, and every figure is the one of in-order delivery. The same checks must catch
//! each of the deliberately broken variants ([`Broken`]).
//!
//! `BANYAN_SIM_SEED=n` runs one seed and prints its trace; `BANYAN_SIM_RUNS=n` runs more than CI does.

mod centre;
mod check;
mod machine;
mod model;
mod sticks;
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use banyan_shared::keys::SigningKey;

use world::World;

/// Runs in CI.
const RUNS: u64 = 20_000;
/// A broken variant must be caught within so many seeds.
const CAUGHT_WITHIN: u64 = 4_000;

/// A mistake made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// An entry counts as delivered once published.
    ForgetOnPublish,
    /// Receipts are believed by their numbers alone.
    NoSums,
    /// Any answer counts as the answer to the present hello.
    NoNonce,
    /// Receipts are believed whoever signed them.
    NoSignature,
    /// The version that arrived last is counted.
    ByArrival,
    /// The version with the newest clock is counted.
    ByClock,
    /// The receipt goes out before the ledger has committed.
    ReceiptBeforeCommit,
    /// What is sent twice is held twice.
    RecountDuplicates,
    /// An entry moved to a new number stays under the old one too.
    RenumberKeepsOld,
    /// A moved old version is not followed by the newest.
    RenumberRegresses,
    /// Numbers that were given out are given out again after a crash.
    ReuseNumbers,
    /// A batch with anything new in it adds everything that is in it.
    HoldRefused,
    /// The answer to a bundle counts as the centre's newest word whenever it is brought.
    OldBundleAnswers,
    /// What was written into a bundle counts as delivered.
    ForgetOnExport,
}

/// A small generator of our own: the same seed is the same run on every machine and in every version.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn random32(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }
}

/// The keys of every run: agents 0–2, the centre, and a stranger.
struct Keys {
    agents: [SigningKey; 3],
    centre: SigningKey,
    stranger: SigningKey,
}

impl Keys {
    fn new() -> Keys {
        let key = |n: u8| SigningKey::from_seed(&[n; 32]).unwrap();
        Keys { agents: [key(1), key(2), key(3)], centre: key(4), stranger: key(5) }
    }
}

/// Runs `seed`; what went wrong, if anything did, and what the run saw.
fn run(seed: u64, broken: Broken, keys: &Keys, trace: bool) -> (Result<(), String>, World<'_>) {
    let mut world = World::new(seed, broken, keys, trace);
    let result = world.run();
    (result, world)
}

fn environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs the seeds `from..to` on two threads; the lowest seed that fails, with why.
fn first_failure(broken: Broken, from: u64, to: u64, seen: &[AtomicU64]) -> Option<(u64, String)> {
    let next = AtomicU64::new(from);
    let found = AtomicBool::new(false);
    let worker = || {
        let keys = Keys::new();
        while !found.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                break;
            }
            let (result, world) = run(seed, broken, &keys, false);
            for (total, n) in seen.iter().zip(world.seen()) {
                total.fetch_add(n, Ordering::Relaxed);
            }
            if let Err(why) = result {
                found.store(true, Ordering::Relaxed);
                return Some((seed, why));
            }
        }
        None
    };
    std::thread::scope(|scope| {
        let handles = [scope.spawn(worker), scope.spawn(worker)];
        handles.into_iter().filter_map(|handle| handle.join().unwrap()).min()
    })
}

#[test]
fn the_machines_keep_their_promises() {
    if let Some(seed) = environment("BANYAN_SIM_SEED") {
        let keys = Keys::new();
        let (result, world) = run(seed, Broken::Nothing, &keys, true);
        println!("{}", world.trace());
        result.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        return;
    }
    let runs = environment("BANYAN_SIM_RUNS").unwrap_or(RUNS);
    let seen: Vec<AtomicU64> = world::SEEN.iter().map(|_| AtomicU64::new(0)).collect();
    if let Some((seed, why)) = first_failure(Broken::Nothing, 0, runs, &seen) {
        let keys = Keys::new();
        let (_, world) = run(seed, Broken::Nothing, &keys, true);
        panic!("{}\nseed {seed}: {why}\nreplay with BANYAN_SIM_SEED={seed}", world.trace());
    }
    for (what, n) in world::SEEN.iter().zip(&seen) {
        let n = n.load(Ordering::Relaxed);
        println!("{what}: {n}");
        assert!(n > 0, "no run ever saw: {what}");
    }
}

/// Shows that the checks can fail: each mistake is caught.
fn caught(broken: Broken) {
    let found = first_failure(broken, 0, CAUGHT_WITHIN, &[]);
    let (seed, why) = found.unwrap_or_else(|| panic!("{broken:?} was not caught"));
    println!("{broken:?}: seed {seed}: {why}");
}

macro_rules! caught {
    ($($name:ident: $broken:ident;)*) => {$(
        #[test]
        fn $name() {
            caught(Broken::$broken);
        }
    )*};
}

caught! {
    forgetting_on_publish_is_caught: ForgetOnPublish;
    trusting_numbers_without_sums_is_caught: NoSums;
    an_old_answer_taken_for_the_present_one_is_caught: NoNonce;
    receipts_of_a_stranger_are_caught: NoSignature;
    order_by_arrival_is_caught: ByArrival;
    order_by_clock_is_caught: ByClock;
    a_receipt_before_the_commit_is_caught: ReceiptBeforeCommit;
    counting_duplicates_is_caught: RecountDuplicates;
    moving_without_letting_go_is_caught: RenumberKeepsOld;
    a_moved_old_version_that_comes_back_is_caught: RenumberRegresses;
    numbers_used_again_after_a_crash_are_caught: ReuseNumbers;
    a_refused_entry_held_beside_a_new_one_is_caught: HoldRefused;
    an_old_bundles_answer_taken_for_the_newest_word_is_caught: OldBundleAnswers;
    forgetting_on_export_is_caught: ForgetOnExport;
}
