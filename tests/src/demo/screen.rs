//! What the demo says, in Chinese with English beside, or in one language.

use std::io::Write;
use std::time::{Duration, Instant};

use banyan_shared::catalogue::Lang;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The screen: text to stdout, bars to stderr.
pub(super) struct Screen {
    lang: Option<Lang>,
    bars: MultiProgress,
    begun: Instant,
}

impl Screen {
    /// In one language, or in both.
    pub(super) fn new(lang: Option<Lang>) -> Screen {
        Screen { lang, bars: MultiProgress::new(), begun: Instant::now() }
    }

    /// The language of tables.
    pub(super) fn lang(&self) -> &'static str {
        if self.lang == Some(Lang::En) { "en" } else { "zh" }
    }

    /// A text in the language asked for.
    pub(super) fn text(&self, zh: &str, en: &str) -> String {
        match self.lang {
            Some(Lang::Zh) => zh.to_owned(),
            Some(Lang::En) => en.to_owned(),
            None => format!("{zh}  {en}"),
        }
    }

    /// A line.
    pub(super) fn say(&self, zh: &str, en: &str) {
        self.print(&self.text(zh, en));
    }

    /// A line with the time since the start.
    pub(super) fn note(&self, zh: &str, en: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.print(&format!("{seconds:6.1} s  {}", self.text(zh, en)));
    }

    /// Text as it is.
    pub(super) fn print(&self, text: &str) {
        self.bars.suspend(|| {
            let mut out = std::io::stdout().lock();
            // A reader that has gone (`| head`) ends nobody's demo.
            let _ = writeln!(out, "{text}");
        });
    }

    /// How long it has been.
    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A bar.
    pub(super) fn bar(&self, zh: &str, en: &str, length: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{prefix} [{bar:32}] {pos}/{len} {msg}")
            .expect("the template is well-formed")
            .progress_chars("=> ");
        let bar = self.bars.add(ProgressBar::new(length));
        bar.set_style(style);
        bar.set_prefix(self.text(zh, en));
        bar
    }
}
