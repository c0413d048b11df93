//! What figures have in common: texts and descriptions of items, each held once however many figures show it.
//!
//! A province's year has hundreds of thousands of figures that are kept ([`super::kept`]); with texts of their
//! own they would take some 400 bytes each.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use banyan_shared::catalogue::indicator::Definition;
use banyan_shared::catalogue::{Catalogue, Element, ElementIx, Indicator, IndicatorIx};
use foldhash::HashSet;
use serde::Serialize;

/// A text that many answers hold together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SharedText(Arc<str>);

impl Deref for SharedText {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SharedText {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SharedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for SharedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl PartialEq<&str> for SharedText {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

/// What all figures of an element, or of an indicator while one definition is in force, say alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// Its code.
    pub code: String,
    /// The unit of measure.
    pub unit: String,
    /// Version of the definition.
    pub definition: String,
    /// Its name.
    pub name: String,
    /// What an indicator's ratio is multiplied by; 1 for an element.
    pub factor: u64,
}

/// The items of a catalogue, and the texts met so far.
#[derive(Debug, Default)]
pub(super) struct Items {
    texts: RwLock<HashSet<SharedText>>,
    elements: OnceLock<Vec<Arc<Item>>>,
    /// By indicator, then by definition.
    indicators: OnceLock<Vec<Vec<Arc<Item>>>>,
}

impl Items {
    /// The text, as it is held already if it is. For texts of which there are few: codes, fixed words,
    /// moments at which reports are due.
    pub(super) fn text(&self, text: &str) -> SharedText {
        if let Some(held) = self.texts.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            return held.clone();
        }
        let mut texts = self.texts.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = texts.get(text) {
            return held.clone();
        }
        let new = SharedText(text.into());
        texts.insert(new.clone());
        new
    }

    pub(super) fn element(&self, catalogue: &Catalogue, element: ElementIx) -> Arc<Item> {
        let all = self.elements.get_or_init(|| {
            let item = |element: &Element| {
                Arc::new(Item {
                    code: element.code.to_string(),
                    unit: element.unit.clone(),
                    definition: element.definition.clone(),
                    name: element.name.zh.clone(),
                    factor: 1,
                })
            };
            catalogue.elements.iter().map(item).collect()
        });
        all[element.at()].clone()
    }

    /// An indicator with one of its definitions.
    pub(super) fn indicator(
        &self,
        catalogue: &Catalogue,
        indicator: IndicatorIx,
        definition: &Definition,
    ) -> Arc<Item> {
        let all = self.indicators.get_or_init(|| {
            let items = |indicator: &Indicator| {
                let item = |definition: &Definition| {
                    Arc::new(Item {
                        code: indicator.code.to_string(),
                        unit: indicator.unit.clone(),
                        definition: definition.version.clone(),
                        name: indicator.name.zh.clone(),
                        factor: u64::from(definition.factor),
                    })
                };
                indicator.definitions.iter().map(item).collect()
            };
            catalogue.indicators.iter().map(items).collect()
        });
        let of_it = |item: &&Arc<Item>| item.definition == definition.version;
        all[indicator.at()].iter().find(of_it).expect("each definition has its item").clone()
    }
}
