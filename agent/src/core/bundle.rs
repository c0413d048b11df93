//! Delivery by hand: bundles written, and the centre's answers taken in.
//!
//! A bundle says in one go what a connection says in several turns, since the centre cannot ask back: the
//! enrolment that is open, the grants behind everything in it, the hello, and whatever waits. It holds signed
//! messages and no key. Writing one owes nothing to anybody: only the answer, or a line, releases entries.

use banyan_shared::sync::Event;
use banyan_shared::wire::{Answer, Envelope, Kind, Message, Receipt, SignedGrant};

use super::{Core, draw_nonce, enrolment_open};
use crate::command::{Brought, BundlePart, BundlePlace, Reply};
use crate::identity::Issued;
use crate::note::Note;

impl Core {
    /// The next part of a bundle.
    pub(super) fn bundle_part(&mut self, from: Option<BundlePlace>) -> Result<Reply, Note> {
        let nonce = match from {
            Some(place) => place.nonce,
            None => draw_nonce()?,
        };
        let mut messages = Vec::new();
        if from.is_none() {
            messages.extend(self.enrol_request());
            messages.extend(self.introductions(&self.grants_in_use(), nonce));
        }
        let (mut entries, mut next) = (0, None);
        if let Some(store) = &mut self.store {
            let now = self.options.clock.now();
            let part = store.export(&self.identity, nonce, from.map(|place| place.mark), now)?;
            messages.extend(part.messages);
            entries = part.entries;
            next = part.next.map(|mark| BundlePlace { nonce, mark });
        }
        if messages.is_empty() {
            return Err(enrolment_open());
        }
        let present = self.identity.present();
        // A name only: what waits goes without it.
        let context = present.and_then(|present| self.identity.context(present).ok());
        let home = context.map(|context| context.home().code.to_string());
        Ok(Reply::BundlePart(BundlePart {
            agent: self.identity.agent().to_string(),
            home,
            messages: messages.into_iter().map(Message).collect(),
            entries,
            next,
        }))
    }

    /// The newest grant, and those of the contexts of everything that waits.
    fn grants_in_use(&self) -> Vec<SignedGrant> {
        let waiting = self.store.as_ref().map(|store| store.outbox.contexts_waiting());
        let mut contexts: Vec<u32> = waiting.into_iter().flatten().collect();
        contexts.extend(self.identity.present());
        // No contexts would mean all of them.
        if contexts.is_empty() { Vec::new() } else { self.identity.grants(&contexts) }
    }

    /// Takes in messages of an answer. What does not verify is left aside: it changes nothing.
    pub(super) fn bundle_answer(&mut self, messages: &[Message]) -> Result<Reply, Note> {
        let mut came = Brought::default();
        let waiting = |core: &Core| core.store.as_ref().map_or(0, |s| s.outbox.waiting() as u64);
        let received = |core: &Core| core.store.as_ref().map_or(0, |store| store.received());
        let before = received(self);
        for Message(message) in messages {
            if !self.take_brought(message, &mut came)? {
                came.left_aside += 1;
            }
        }
        came.received = received(self).saturating_sub(before);
        came.waiting = waiting(self);
        came.refused = self.store.as_ref().map_or(0, |store| store.refused().count() as u64);
        Ok(Reply::Brought(came))
    }

    /// Takes in one message; false if it was left aside.
    fn take_brought(&mut self, message: &[u8], came: &mut Brought) -> Result<bool, Note> {
        let Ok(envelope) = Envelope::read(message) else { return Ok(false) };
        if envelope.agent != self.identity.agent() {
            return Ok(false);
        }
        match envelope.kind {
            Kind::Receipt => self.receipt_brought(&envelope, came),
            Kind::Answer => self.answer_brought(&envelope, came),
            _ => Ok(false),
        }
    }

    fn receipt_brought(
        &mut self,
        envelope: &Envelope<'_>,
        came: &mut Brought,
    ) -> Result<bool, Note> {
        let Some(certificate) = self.identity.certificate() else { return Ok(false) };
        let Ok(receipt) = Receipt::open(envelope, &certificate.key) else { return Ok(false) };
        let Some(store) = &mut self.store else { return Ok(false) };
        let newest = store.outbox.awaits(receipt.answers);
        let step = self.event(Event::Brought(&receipt))?;
        // If the line is up, they go with the next tick.
        self.unsent.extend(step.send);
        came.receipts += 1;
        if newest {
            came.newest = true;
            self.identity.set_refusal(None)?;
            if let Some(store) = &mut self.store {
                store.note_brought(receipt.time)?;
            }
        }
        Ok(true)
    }

    fn answer_brought(
        &mut self,
        envelope: &Envelope<'_>,
        came: &mut Brought,
    ) -> Result<bool, Note> {
        let pinned = self.identity.pinned();
        let Ok((answer, certificate, root)) = Answer::open_pinned(envelope, &pinned) else {
            return Ok(false);
        };
        if !self.identity.trust(root, &certificate)? {
            return Ok(false);
        }
        match answer {
            Answer::Granted { grant, catalogue } => {
                let enrolling = self.identity.code().is_some();
                if !self.identity.accept(&grant, catalogue.as_deref())? {
                    return Ok(false);
                }
                self.open_store()?;
                if let Some(store) = &mut self.store {
                    store.granted(&mut self.identity)?;
                }
                // A service that was still asking has another thing to say now.
                self.hello_wanted |= enrolling;
                came.grants += 1;
            }
            Answer::NotEnrolled { refusal } => {
                self.identity.set_refusal(Some(refusal))?;
                came.refusal = Some(refusal);
            }
            Answer::WhoAreYou { .. } => came.unknown = true,
            // An older answer's certificate does not take the place of a newer one.
            Answer::Certified { expires, .. }
                if self.identity.issued().is_some_and(|known| known.expires > expires) => {}
            Answer::Certified { certificate, renew_from, expires } => {
                if !self.take_certificate(Issued { renew_from, expires, certificate })? {
                    return Ok(false);
                }
                came.certified = true;
            }
            // Where to connect is for whoever has a line.
            Answer::Elsewhere { .. } => {}
        }
        Ok(true)
    }
}
