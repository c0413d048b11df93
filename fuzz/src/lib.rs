//! The targets of `tests/src/fuzz.rs` under libFuzzer, each held to its limit of memory.

#[path = "../../tests/src/counting.rs"]
pub mod counting;
#[path = "../../tests/src/fuzz.rs"]
pub mod fuzz;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// Runs an input.
///
/// # Panics
/// If the target does not keep a promise, or holds more memory than it may.
pub fn run(target: &fuzz::Target, input: &[u8]) {
    let held = counting::most_held(|| (target.run)(input));
    let limit = target.memory + target.times * input.len();
    assert!(held <= limit, "{} held {held} bytes for {}, limit {limit}", target.name, input.len());
}

/// The program of a target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            static TARGET: std::sync::OnceLock<&$crate::fuzz::Target> = std::sync::OnceLock::new();
            let target = TARGET.get_or_init(|| $crate::fuzz::target($name).expect("a target"));
            $crate::run(target, input);
        });
    };
}
