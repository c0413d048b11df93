//! Makes a data directory with a province-year: see [`banyan_tests::province`].

use std::path::PathBuf;

use anyhow::{Result, bail};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Period, PeriodType};
use banyan_tests::model::shipped;
use banyan_tests::province::{Options, generate};
use clap::Parser;

/// Make an aggregator's data directory with months of reports of Guizhou: real keys, signed batches, the real ledger.
///
/// Progress goes to stderr, a summary as JSON to stdout. Example:
/// cargo run --release -p banyan-tests --bin province -- --data-dir /tmp/province
#[derive(Parser)]
struct Arguments {
    /// The directory to make; it must not exist or be empty.
    #[arg(long)]
    data_dir: PathBuf,
    /// The first month; unless given, so that the last one's forms are all in by now.
    #[arg(long)]
    from: Option<Period>,
    /// How many months.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=120))]
    months: u32,
    /// What the counts start from.
    #[arg(long)]
    seed: Option<u64>,
    /// Only the facilities below this unit; may be repeated.
    #[arg(long, value_name = "UNIT")]
    below: Vec<String>,
    /// Every how many days a clinic with an agent of its own sends.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=31))]
    every: Option<u32>,
    /// The share of village clinics with an agent of their own, in percent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=100))]
    own_percent: Option<u32>,
    /// How many provinces like Guizhou, under other codes beside each other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=30))]
    times: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let dir = &arguments.data_dir;
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: name a new directory", dir.display());
    }
    let now: Millis = jiff::Timestamp::now().into();
    let (catalogue, _) = shipped()?;
    let mut options = Options::before(catalogue.day_at(now));
    options.from = options.from.plus(12 - i32::try_from(arguments.months)?);
    options.months = arguments.months;
    if let Some(from) = arguments.from {
        if from.kind() != PeriodType::Month {
            bail!("--from {from}: name a month, for example 2025-11");
        }
        options.from = from;
    }
    options.seed = arguments.seed.unwrap_or(options.seed);
    options.below = arguments.below;
    options.times = arguments.times;
    options.every = arguments.every.unwrap_or(options.every);
    options.own_percent = arguments.own_percent.unwrap_or(options.own_percent);
    std::fs::create_dir_all(dir)?;
    let bar = indicatif::ProgressBar::new(0);
    bar.set_style(indicatif::ProgressStyle::with_template(
        "{bar:40} {pos}/{len} days {msg} {elapsed}",
    )?);
    let made = generate(dir, &options, |progress| {
        bar.set_length(u64::from(progress.days.1));
        bar.set_position(u64::from(progress.days.0));
        bar.set_message(format!("{} reports", progress.versions));
    })?;
    bar.finish_and_clear();
    println!("{}", serde_json::to_string_pretty(&made.summary)?);
    Ok(())
}
