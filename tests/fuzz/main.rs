//! The fuzzer's targets in the normal suite: every seed, and random changes of the seeds, the same ones each
//! time; nothing panics, and nothing holds more memory than its limit.

mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

use banyan_tests::counting;
use banyan_tests::fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// Changed inputs for each target.
const CHANGED: u64 = 20_000;
/// Longest input made, in bytes.
const BYTES_MAX: usize = 16 << 10;

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target.name)
}

fn committed(target: &Target) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder(target))
        .unwrap_or_else(|error| panic!("{}: {error}", folder(target).display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Shows the input that a target could not take.
struct Shown<'a>(&'a Target, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.0.name, data_encoding::HEXLOWER.encode(self.1));
        }
    }
}

fn run(target: &Target, input: &[u8]) {
    let _shown = Shown(target, input);
    let held = counting::most_held(|| (target.run)(input));
    let limit = target.memory + target.times * input.len();
    assert!(held <= limit, "{} held {held} bytes for {}, limit {limit}", target.name, input.len());
}

/// One to eight changes of the sorts libFuzzer makes.
fn changed(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.random()),
            4 if at < bytes.len() => {
                let end = random.random_range(at..bytes.len());
                bytes.drain(at..=end);
            }
            5 if at < bytes.len() => {
                let end = random.random_range(at..bytes.len());
                let piece = bytes[at..=end].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

#[test]
fn seeds_and_changes_of_them_break_nothing_and_hold_little() {
    for (number, target) in (0..).zip(TARGETS) {
        let seeds = committed(target);
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        for seed in &seeds {
            run(target, seed);
        }
        let mut random = StdRng::seed_from_u64(number);
        for _ in 0..CHANGED {
            run(target, &changed(&seeds, &mut random));
        }
    }
}

/// The seeds are what the present program writes, so that they lead somewhere; `BANYAN_WRITE_SEEDS=1`
/// writes them anew.
#[test]
fn the_committed_seeds_are_those_of_this_program() {
    let write = std::env::var_os("BANYAN_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds::made() {
        let target = banyan_tests::fuzz::target(target).expect("a target");
        let path = folder(target).join(name);
        if write {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap_or_default();
        assert!(there == bytes, "{} is not what is written now", path.display());
    }
}

/// A limit that nothing can break shows nothing.
#[test]
fn memory_is_counted() {
    let held = counting::most_held(|| drop(std::hint::black_box(vec![0_u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&held), "{held}");
}
