//! What the agent tells people: a stable code and a sentence in both languages.

use banyan_shared::catalogue::Lang;
use serde::{Deserialize, Serialize};

/// How grave a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing was done because of it.
    Error,
    /// It was done, and a person should look.
    Warning,
    /// Good to know.
    Info,
}

/// A message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How grave.
    pub level: Level,
    /// Its stable code.
    pub code: String,
    /// The sentence in Chinese: value, reason, what to do.
    pub zh: String,
    /// The sentence in English.
    pub en: String,
}

impl Note {
    /// The sentence in `lang`, with the code.
    pub fn text(&self, lang: Lang) -> String {
        match lang {
            Lang::Zh => format!("{} [{}]", self.zh, self.code),
            Lang::En => format!("{} [{}]", self.en, self.code),
        }
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}

impl std::error::Error for Note {}

/// Builds a [`Note`]: level, code, Chinese, English; the texts are format strings over names in scope.
macro_rules! note {
    ($level:ident, $code:expr, $zh:literal, $en:literal) => {
        $crate::note::Note {
            level: $crate::note::Level::$level,
            code: String::from($code),
            zh: format!($zh),
            en: format!($en),
        }
    };
}
pub(crate) use note;
