//! Enrolment codes, files and sticks; assigning and revoking agents.

use anyhow::{Context, Result};
use banyan_shared::catalogue::Lang;
use banyan_shared::ids::{AgentId, Millis, UnitCode};
use banyan_shared::organisation::{Found, Lookup, UnitIx};
use banyan_shared::wire::{EnrolCode, EnrolmentFile};
use serde::{Deserialize, Serialize};

use super::{Service, say, usage};
use crate::act::{Act, Below, NewCode, secret_hash};
use crate::identity::random;
use crate::state::State;

/// Most facilities in one request for enrolment files; the command asks again for the rest.
pub(super) const FILES_MAX: usize = 500;

/// One agent: a home, and others it reports for by proxy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrolOne {
    /// The facilities; the first is the home.
    pub units: Vec<String>,
    /// All under these, as a rule.
    pub below: Vec<String>,
    /// Only these kinds under them.
    pub kinds: Vec<String>,
    /// How long the code is valid, in seconds.
    pub expires_s: i64,
    /// The agent whose history it continues: its PC is replaced. Without units the new one gets that one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Language of messages.
    pub lang: Lang,
}

/// One enrolment file for each facility.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrolEach {
    /// The facilities, by code.
    pub units: Vec<String>,
    /// How long the codes are valid, in seconds.
    pub expires_s: i64,
    /// Language of messages.
    pub lang: Lang,
}

/// One file for many facilities, of which each installer picks one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrolStick {
    /// All under these.
    pub below: Vec<String>,
    /// Only these kinds under them.
    pub kinds: Vec<String>,
    /// How many agents may use it.
    pub uses: u32,
    /// How long it is valid, in seconds.
    pub expires_s: i64,
    /// Whether every claim waits for an operator.
    pub approve: bool,
    /// Language of messages.
    pub lang: Lang,
}

/// An enrolment file made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolledFile {
    /// The home.
    pub unit: UnitCode,
    /// Its name.
    pub name: String,
    /// Its place, as names from the top.
    pub path: String,
    /// The code, for a person to type.
    pub code: String,
    /// When it expires.
    pub expires: String,
    /// The file, as base64.
    pub file: String,
}

/// What an enrolment made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// The code.
    pub code: String,
    /// For which facilities.
    pub facilities: Vec<UnitCode>,
    /// When it expires.
    pub expires: String,
}

/// The unit `text` names.
///
/// # Errors
/// [`super::Usage`] listing the candidates if it names no single unit.
pub(super) fn find_unit(state: &State, text: &str, now: Millis, lang: Lang) -> Result<UnitIx> {
    let day = state.catalogue.day_at(now);
    match state.organisation.find(text, day) {
        Lookup::One(Found::Unit(unit)) => Ok(unit),
        Lookup::One(Found::Network(_)) => Err(usage(say(
            lang,
            format!("{text} 是医联体网络，这里需要行政区划或机构代码"),
            format!("{text} is a network: a unit is needed here"),
        ))),
        Lookup::Candidates(candidates) if candidates.is_empty() => Err(usage(say(
            lang,
            format!("没有名为 {text} 的机构或区划；用 units 命令查找代码"),
            format!("no unit is called {text}: find its code with the units command"),
        ))),
        Lookup::Candidates(candidates) => {
            let lines: Vec<String> = candidates
                .iter()
                .map(|c| format!("  {}  {}", c.code, c.path.join(" › ")))
                .collect();
            Err(usage(format!(
                "{}\n{}",
                say(
                    lang,
                    format!("{text} 对应多个机构，请用代码："),
                    format!("{text} names several units, use the code:")
                ),
                lines.join("\n")
            )))
        }
    }
}

/// Checks that `kind` is one of the catalogue's.
///
/// # Errors
/// [`super::Usage`] listing the kinds if it is not.
pub(super) fn known_kind(state: &State, kind: &str, lang: Lang) -> Result<()> {
    if state.catalogue.kind(kind).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = state.catalogue.kinds.iter().map(|k| k.code.as_str()).collect();
    Err(usage(say(
        lang,
        format!("没有机构类别 {kind}；可用：{}", known.join("、")),
        format!("there is no kind {kind}; known: {}", known.join(", ")),
    )))
}

fn rules(
    state: &State,
    below: &[String],
    kinds: &[String],
    now: Millis,
    lang: Lang,
) -> Result<Vec<Below>> {
    for kind in kinds {
        known_kind(state, kind, lang)?;
    }
    let mut rules = Vec::new();
    for text in below {
        let unit = find_unit(state, text, now, lang)?;
        let unit = state.organisation.code(unit).clone();
        if kinds.is_empty() {
            rules.push(Below { unit, kind: None });
        } else {
            let of = |kind: &String| Below { unit: unit.clone(), kind: Some(kind.clone()) };
            rules.extend(kinds.iter().map(of));
        }
    }
    Ok(rules)
}

/// Milliseconds from seconds, at least one and at most ten years.
fn lifetime_ms(seconds: i64) -> i64 {
    seconds.clamp(1, 10 * 366 * 86_400) * 1000
}

struct Secret {
    number: u32,
    secret: [u8; 10],
}

/// Refuses a number drawn twice: of the four thousand million, one in a province's lifetime perhaps.
fn fresh(state: &State, number: u32) -> Result<()> {
    if state.codes.contains_key(&number) {
        anyhow::bail!("the same code number was drawn twice: ask again");
    }
    Ok(())
}

impl Service {
    /// A code number not in use yet, and a secret for it.
    fn secret(&self) -> Result<Secret> {
        let mut drawn = self.secrets(1)?;
        drawn.pop().context("one secret was drawn")
    }

    fn secrets(&self, count: usize) -> Result<Vec<Secret>> {
        let mut taken = std::collections::HashSet::new();
        let mut secrets = Vec::with_capacity(count);
        while secrets.len() < count {
            let number = u32::from_le_bytes(random()?);
            if !self.state.read().codes.contains_key(&number) && taken.insert(number) {
                secrets.push(Secret { number, secret: random()? });
            }
        }
        Ok(secrets)
    }

    fn code(&self, secret: &Secret) -> EnrolCode {
        EnrolCode {
            address: self.mqtt_address(),
            root: self.identity.root.fingerprint(),
            number: secret.number,
            secret: secret.secret,
        }
    }

    fn local_time(&self, at: Millis) -> String {
        let zone = self.state.read().catalogue.time_zone.clone();
        at.timestamp().to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// The codes of the facilities under rules.
    ///
    /// # Errors
    /// [`super::Usage`] if a unit or kind is unknown.
    pub fn expand(&self, below: &[String], kinds: &[String], lang: Lang) -> Result<Vec<UnitCode>> {
        let now = self.now();
        let state = self.state.read();
        let rules = rules(&state, below, kinds, now, lang)?;
        Ok(state.below(&rules, state.catalogue.day_at(now)))
    }

    /// Makes a code for one agent.
    ///
    /// # Errors
    /// [`super::Usage`] if a unit is unknown or no facility, or what the disk says.
    pub async fn enrol_one(&self, by: &str, request: EnrolOne) -> Result<Enrolled> {
        let now = self.now();
        let secret = self.secret()?;
        let code = self.code(&secret);
        let expires = now.plus(lifetime_ms(request.expires_s));
        let incarnation = self.ledger.identity().incarnation;
        let (told, tell) = tokio::sync::oneshot::channel();
        self.act(
            by,
            Box::new(move |state| {
                let lang = request.lang;
                let older = request.replaces.as_deref().map(|text| named_agent(state, text, lang));
                let older = older.transpose()?;
                let (named, below): (Vec<UnitIx>, _) = match &older {
                    Some((_, agent)) if request.units.is_empty() && request.below.is_empty() => {
                        let present = &state.contexts[&agent.newest];
                        let units = present.facilities.iter();
                        let units = units.filter_map(|code| state.organisation.unit(code.as_str()));
                        (units.collect(), present.below.clone())
                    }
                    _ => {
                        let find = |text: &String| find_unit(state, text, now, lang);
                        let named = request.units.iter().map(find).collect::<Result<Vec<_>>>()?;
                        (named, rules(state, &request.below, &request.kinds, now, lang)?)
                    }
                };
                let day = state.catalogue.day_at(now);
                let context = state
                    .next_context(incarnation, 1)
                    .and_then(|number| state.context(number, &named, &below, day))
                    .map_err(|error| usage(error.to_string()))?;
                fresh(state, secret.number)?;
                let older = older.map(|(id, _)| id);
                // The receiver waits right below.
                let _ = told.send(context.facilities.clone());
                let number = secret.number;
                let codes = Act::Codes(vec![NewCode {
                    number,
                    secret: secret_hash(number, &secret.secret),
                    contexts: vec![context],
                    uses: 1,
                    expires,
                }]);
                // In force before the code is shown: nobody can use it earlier.
                let replaces = older.map(|agent| Act::CodeReplaces { code: number, agent });
                Ok([codes].into_iter().chain(replaces).collect())
            }),
        )
        .await?;
        let facilities = tell.await.context("the service is stopping")?;
        Ok(Enrolled { code: code.to_string(), facilities, expires: self.local_time(expires) })
    }

    /// Makes an enrolment file for each facility named.
    ///
    /// # Errors
    /// [`super::Usage`] if a unit is unknown, no facility or there are too many, or what the disk says.
    pub async fn enrol_each(&self, by: &str, request: EnrolEach) -> Result<Vec<EnrolledFile>> {
        let lang = request.lang;
        if request.units.len() > FILES_MAX {
            return Err(usage(format!("at most {FILES_MAX} facilities in one request")));
        }
        let now = self.now();
        let expires = now.plus(lifetime_ms(request.expires_s));
        let incarnation = self.ledger.identity().incarnation;
        let secrets: Vec<Secret> = self.secrets(request.units.len())?;
        let codes: Vec<EnrolCode> = secrets.iter().map(|secret| self.code(secret)).collect();
        let (told, tell) = tokio::sync::oneshot::channel();
        self.act(
            by,
            Box::new(move |state| {
                let day = state.catalogue.day_at(now);
                let first = state
                    .next_context(incarnation, request.units.len())
                    .map_err(|error| usage(error.to_string()))?;
                let mut made = Vec::new();
                for ((number, text), secret) in (first..).zip(&request.units).zip(&secrets) {
                    let unit = find_unit(state, text, now, lang)?;
                    fresh(state, secret.number)?;
                    let context = state
                        .context(number, &[unit], &[], day)
                        .map_err(|error| usage(error.to_string()))?;
                    made.push(NewCode {
                        number: secret.number,
                        secret: secret_hash(secret.number, &secret.secret),
                        contexts: vec![context],
                        uses: 1,
                        expires,
                    });
                }
                let numbers: Vec<u32> = made.iter().map(|code| code.contexts[0].number).collect();
                let _ = told.send(numbers);
                Ok(vec![Act::Codes(made)])
            }),
        )
        .await?;
        let numbers = tell.await.context("the service is stopping")?;
        // Before the guard: a second look at the state while holding the first could wait for ever.
        let valid_until = self.local_time(expires);
        let state = self.state.read();
        let mut files = Vec::with_capacity(codes.len());
        for (code, number) in codes.into_iter().zip(numbers) {
            let offer = state.offer(number).context("the context was stored a moment ago")?;
            let scope = &offer.facilities[0];
            let (unit, name, path) = (scope.code.clone(), scope.name.clone(), scope.place.clone());
            let shown = code.to_string();
            let held = &state.catalogues[&offer.catalogue];
            let file = EnrolmentFile {
                code,
                root: self.identity.root,
                certificate: self.identity.certificate.clone(),
                offers: vec![offer],
                catalogue: held.compressed.clone(),
                expires,
            };
            let bytes = file.to_bytes(&self.identity.key);
            files.push(EnrolledFile {
                unit,
                name,
                path,
                code: shown,
                expires: valid_until.clone(),
                file: data_encoding::BASE64.encode(&bytes),
            });
        }
        Ok(files)
    }

    /// Makes one file for many facilities.
    ///
    /// # Errors
    /// [`super::Usage`] if a unit is unknown or there is no facility below, or what the disk says.
    pub async fn enrol_stick(&self, by: &str, request: EnrolStick) -> Result<EnrolledFile> {
        let now = self.now();
        let lang = request.lang;
        let expires = now.plus(lifetime_ms(request.expires_s));
        let incarnation = self.ledger.identity().incarnation;
        let secret = self.secret()?;
        let code = self.code(&secret);
        let (told, tell) = tokio::sync::oneshot::channel();
        self.act(
            by,
            Box::new(move |state| {
                let day = state.catalogue.day_at(now);
                let below = rules(state, &request.below, &request.kinds, now, lang)?;
                let facilities = state.below(&below, day);
                let first = state
                    .next_context(incarnation, facilities.len())
                    .map_err(|error| usage(error.to_string()))?;
                fresh(state, secret.number)?;
                let mut contexts = Vec::new();
                for (number, facility) in (first..).zip(&facilities) {
                    let unit = state.organisation.unit(facility.as_str());
                    let unit = unit.context("a facility of the registry is in the registry")?;
                    let context = state.context(number, &[unit], &[], day);
                    contexts.push(context.map_err(|error| usage(error.to_string()))?);
                }
                if contexts.is_empty() {
                    return Err(usage(say(
                        lang,
                        "该区划下没有符合条件的机构",
                        "there is no such facility below that unit",
                    )));
                }
                let _ = told.send(contexts.iter().map(|c| c.number).collect::<Vec<_>>());
                let number = secret.number;
                let codes = Act::Codes(vec![NewCode {
                    number,
                    secret: secret_hash(number, &secret.secret),
                    contexts,
                    uses: request.uses,
                    expires,
                }]);
                // In force before the file is written: nobody can use the code earlier.
                let wait = request.approve.then_some(Act::ClaimsWait { code: number });
                Ok([codes].into_iter().chain(wait).collect())
            }),
        )
        .await?;
        let numbers = tell.await.context("the service is stopping")?;
        let valid_until = self.local_time(expires);
        let state = self.state.read();
        let offers: Vec<_> = numbers.iter().filter_map(|number| state.offer(*number)).collect();
        let held = &state.catalogues[&offers[0].catalogue];
        let shown = code.to_string();
        let unit = offers[0].facilities[0].code.clone();
        let file = EnrolmentFile {
            code,
            root: self.identity.root,
            certificate: self.identity.certificate.clone(),
            offers,
            catalogue: held.compressed.clone(),
            expires,
        };
        let bytes = file.to_bytes(&self.identity.key);
        Ok(EnrolledFile {
            unit,
            name: String::new(),
            path: String::new(),
            code: shown,
            expires: valid_until,
            file: data_encoding::BASE64.encode(&bytes),
        })
    }

    /// Gives an agent more facilities, or takes some away (`remove`). Its home stays.
    ///
    /// # Errors
    /// [`super::Usage`] if the agent or a unit is unknown, or what the disk says.
    pub async fn assign(
        &self,
        by: &str,
        agent: AgentId,
        request: EnrolOne,
        remove: bool,
    ) -> Result<Vec<UnitCode>> {
        let now = self.now();
        let incarnation = self.ledger.identity().incarnation;
        let (told, tell) = tokio::sync::oneshot::channel();
        self.act(
            by,
            Box::new(move |state| {
                let lang = request.lang;
                let known = known_agent(state, agent, lang)?;
                let present = &state.contexts[&known.newest];
                let day = state.catalogue.day_at(now);
                let mut facilities = present.facilities.clone();
                let mut below = present.below.clone();
                let asked = rules(state, &request.below, &request.kinds, now, lang)?;
                let mut named = state.below(&asked, day);
                for text in &request.units {
                    let unit = find_unit(state, text, now, lang)?;
                    named.push(state.organisation.code(unit).clone());
                }
                if remove {
                    let home = facilities.first().cloned();
                    facilities.retain(|f| Some(f) == home.as_ref() || !named.contains(f));
                    // A rule that covers what is taken away becomes the list of the others.
                    below.retain(|rule| {
                        let covered = state.below(std::slice::from_ref(rule), day);
                        !covered.iter().any(|facility| named.contains(facility))
                    });
                } else {
                    facilities.extend(named);
                    below.extend(asked);
                }
                let units: Vec<UnitIx> =
                    facilities.iter().filter_map(|f| state.organisation.unit(f.as_str())).collect();
                let mut context = state
                    .next_context(incarnation, 1)
                    .and_then(|number| state.context(number, &units, &[], day))
                    .map_err(|error| usage(error.to_string()))?;
                context.below = below;
                let _ = told.send(context.facilities.clone());
                Ok(vec![Act::Scope { agent, context }])
            }),
        )
        .await?;
        tell.await.context("the service is stopping")
    }

    /// Puts an agent out.
    ///
    /// # Errors
    /// [`super::Usage`] if the agent is unknown, or what the disk says.
    pub async fn revoke(&self, by: &str, agent: AgentId, lang: Lang) -> Result<()> {
        self.act(
            by,
            Box::new(move |state| {
                known_agent(state, agent, lang)?;
                Ok(vec![Act::Revoked { agent }])
            }),
        )
        .await
    }
}

/// The agent `text` names.
fn named_agent<'a>(
    state: &'a State,
    text: &str,
    lang: Lang,
) -> Result<(AgentId, &'a crate::state::Agent)> {
    let id = text.parse().map_err(|e: banyan_shared::ids::InvalidId| usage(e.to_string()))?;
    Ok((id, known_agent(state, id, lang)?))
}

fn known_agent(state: &State, agent: AgentId, lang: Lang) -> Result<&crate::state::Agent> {
    state.agents.get(&agent).ok_or_else(|| {
        usage(say(
            lang,
            format!("没有终端 {agent}；用 fleet 命令查看已注册终端"),
            format!("there is no agent {agent}: see the fleet command"),
        ))
    })
}
