//! Bundles on sticks: written, carried, cut short, taken in twice and in any order; and their answers.

use std::sync::Arc;

use banyan_shared::sync::{Carried, Event};
use banyan_shared::wire::{Envelope, Receipt};

use super::world::{ROUNDS_TO_REST, World};
use super::{Broken, check};

const STICKS_MAX: usize = 6;

/// A bundle, and the answer it got last.
#[derive(Clone)]
pub(super) struct Stick {
    agent: usize,
    nonce: u64,
    messages: Vec<Arc<[u8]>>,
    answer: Vec<Arc<[u8]>>,
    /// How often the answer was brought.
    brought: u64,
}

impl World<'_> {
    /// Somebody does something with a stick.
    pub(super) fn stick(&mut self, at: usize) -> Result<(), String> {
        match self.below(4) {
            0 => self.export(at),
            1 if !self.sticks.is_empty() => {
                let stick = self.below(self.sticks.len());
                self.take_in(stick)
            }
            _ => {
                let agent = self.machines[at].agent;
                let answered = |stick: &Stick| stick.agent == agent && !stick.answer.is_empty();
                let fitting: Vec<usize> =
                    (0..self.sticks.len()).filter(|stick| answered(&self.sticks[*stick])).collect();
                match fitting.len() {
                    0 => Ok(()),
                    many => {
                        let stick = fitting[self.below(many)];
                        self.bring(at, stick)
                    }
                }
            }
        }
    }

    /// Writes a bundle. The machine may die in the middle of it.
    fn export(&mut self, at: usize) -> Result<(), String> {
        if self.machines[at].outbox.is_none() {
            self.machines[at].start();
        }
        let nonce = self.shared.rng.next();
        let bytes_max = 1 + self.below(400);
        let (mut messages, mut after) = (Vec::new(), None);
        loop {
            if self.machines[at].outbox.is_none() {
                self.machines[at].start();
            }
            let key = &self.keys.agents[self.machines[at].agent];
            let Some((part, next)) = self.machines[at].export(nonce, after, bytes_max, key) else {
                return Err("a machine that runs does not export".into());
            };
            messages.extend(part);
            if self.crashes_now() {
                self.crash(at);
                if self.chance(50) {
                    return Ok(());
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        if self.broken == Broken::ForgetOnExport {
            self.machines[at].disk.entries.values_mut().for_each(|kept| kept.confirmed = true);
        }
        self.note("bundles", 1);
        self.log(|| format!("machine {at} writes a bundle of {} messages", messages.len()));
        let agent = self.machines[at].agent;
        if self.sticks.len() == STICKS_MAX {
            let lost = self.below(STICKS_MAX);
            self.sticks.swap_remove(lost);
        }
        self.sticks.push(Stick { agent, nonce, messages, answer: Vec::new(), brought: 0 });
        Ok(())
    }

    /// The centre takes a bundle in, perhaps not all of it.
    fn take_in(&mut self, stick: usize) -> Result<(), String> {
        // What is under way from elsewhere is answered by itself.
        self.commit()?;
        let Stick { agent, mut messages, .. } = self.sticks[stick].clone();
        if !self.is_calm() && self.chance(20) {
            self.note("bundles cut short", 1);
            let kept = self.below(messages.len());
            messages.truncate(kept);
        }
        self.log(|| format!("centre takes in a bundle of {agent}"));
        let mut receipts = Vec::new();
        for message in &messages {
            receipts.extend(self.centre.receive(agent, message)?);
        }
        if !self.is_calm() && self.chance(10) {
            self.note("failed commits", 1);
            return self.centre.fail_commit();
        }
        receipts.extend(self.centre.commit()?);
        self.note("bundles taken in", 1);
        let id = self.keys.agents[agent].public().agent_id();
        let sealed = receipts.iter().map(|(_, receipt)| {
            let bytes: Arc<[u8]> = receipt.seal(id, &self.keys.centre).into();
            bytes
        });
        let answer = sealed.collect();
        self.log(|| format!("  the answer: {receipts:?}"));
        (self.sticks[stick].answer, self.sticks[stick].brought) = (answer, 0);
        Ok(())
    }

    /// An answer is brought to a machine.
    fn bring(&mut self, at: usize, stick: usize) -> Result<(), String> {
        if self.machines[at].outbox.is_none() {
            self.machines[at].start();
        }
        let again = self.sticks[stick].brought > 0;
        self.sticks[stick].brought += 1;
        self.note(if again { "old answers brought" } else { "answers brought" }, 1);
        self.log(|| format!("machine {at} takes an answer in, again: {again}"));
        if self.broken == Broken::OldBundleAnswers {
            let nonce = self.sticks[stick].nonce;
            let disk = &mut self.machines[at].disk;
            disk.carried.retain(|bundle| bundle.nonce != nonce);
            disk.carried.push(Carried { nonce, answered: false, runs: Vec::new() });
            let carried = disk.carried.clone();
            if let Some(outbox) = &mut self.machines[at].outbox {
                outbox.load_carried(carried);
            }
        }
        let mut answer = self.sticks[stick].answer.clone();
        if !self.is_calm() && self.chance(15) {
            answer.reverse();
        }
        for bytes in answer {
            let envelope = Envelope::read(&bytes).map_err(|error| error.to_string())?;
            let receipt = Receipt::open(&envelope, &self.keys.centre.public())
                .map_err(|error| error.to_string())?;
            if self.machines[at].outbox.is_none() {
                self.machines[at].start();
            }
            self.feed(at, Event::Brought(&receipt))?;
        }
        Ok(())
    }

    /// The faults have stopped, and there is no line: bundles alone bring everything to rest.
    pub(super) fn rest_by_hand(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            self.machines[at].crash(&mut self.shared);
            self.machines[at].start();
        }
        for _ in 0..ROUNDS_TO_REST {
            let mut waiting = 0;
            for at in 0..self.machines.len() {
                self.sticks.clear();
                self.export(at)?;
                self.take_in(0)?;
                self.bring(at, 0)?;
                check::safety(self)?;
                waiting += self.machines[at].outbox.as_ref().map_or(0, |outbox| outbox.waiting());
            }
            if waiting == 0 {
                return Ok(());
            }
        }
        Err("it does not come to rest by bundles".into())
    }
}
