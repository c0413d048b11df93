//! `enroll`: by a code over the line, or by a file without one.

use std::path::Path;
use std::time::Instant;

use banyan_shared::ids::UnitCode;
use banyan_shared::wire::{EnrolCode, EnrolmentFile, Offer};

use super::args::Enroll;
use super::sync::{Waited, end, wait};
use super::{Exit, Ui, open_driver, patiently, runtime, show};
use crate::files;
use crate::identity::Identity;
use crate::note::{Note, note};

/// Largest enrolment file read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn run(ui: &Ui, enroll: &Enroll) -> Exit {
    // A code read out in groups may come as several words.
    let text = enroll.code.join(" ");
    let path = Path::new(&text);
    let result = if path.is_file() {
        by_file(ui, path, enroll)
    } else if path.extension().is_some_and(|extension| extension == "banyan") {
        Err(note!(Error, "no_file", "没有文件 {text}", "there is no file {text}"))
    } else {
        match text.parse::<EnrolCode>() {
            Ok(code) => by_code(ui, &code, enroll),
            Err(error) => {
                ui.tell(&note!(
                    Error,
                    "bad_code",
                    "注册码有误（{error}），请逐字核对；如为文件，请检查路径",
                    "{error}; if it is a file, check the path"
                ));
                return Exit::Usage;
            }
        }
    };
    result.unwrap_or_else(|note| {
        ui.tell(&note);
        Exit::Failed
    })
}

fn by_file(ui: &Ui, path: &Path, enroll: &Enroll) -> Result<Exit, Note> {
    let shown = path.display();
    let bytes = files::read(path, FILE_BYTES_MAX)
        .map_err(|error| note!(Error, "file", "{shown}：{error}", "{shown}: {error}"))?
        .unwrap_or_default();
    let file = EnrolmentFile::from_bytes(&bytes).map_err(|error| {
        note!(
            Error,
            "file_damaged",
            "{shown} 不是有效的注册文件（{error}），请重新拷贝",
            "{shown} is no valid enrolment file ({error}): copy it again"
        )
    })?;
    let Some(offer) = pick(ui, &file, enroll.facility.as_deref()) else { return Ok(Exit::Usage) };
    let identity = patiently(|| Identity::from_file(&ui.data_dir, &file, offer))?;
    welcome(ui, &identity, offer);
    Ok(Exit::Done)
}

/// The offer for the facility named; the only one if none is named. Says what there is otherwise.
fn pick<'a>(ui: &Ui, file: &'a EnrolmentFile, wanted: Option<&str>) -> Option<&'a Offer> {
    let mut fitting = file.offers.iter().filter(|offer| {
        offer.facilities.first().is_some_and(|home| {
            wanted.is_none_or(|wanted| home.code == wanted || home.name == wanted)
        })
    });
    if let (Some(offer), None) = (fitting.next(), fitting.next()) {
        return Some(offer);
    }
    match wanted {
        Some(wanted) => ui.say(
            &format!("“{wanted}”不在此文件中，或有重名；请用 --facility 代码 选择："),
            &format!("{wanted:?} is not in this file, or not the only one of that name; pick by --facility CODE:"),
        ),
        None => ui.say(
            "此文件供多个机构使用，请用 --facility 代码 选择：",
            "This file is for several facilities; pick one by --facility CODE:",
        ),
    }
    let rows: Vec<Vec<String>> = file
        .offers
        .iter()
        .filter_map(|offer| offer.facilities.first())
        .map(|home| vec![home.code.to_string(), home.name.clone(), home.place.clone()])
        .collect();
    show::rows(ui, &["code", "name", "place"], &rows);
    None
}

fn by_code(ui: &Ui, code: &EnrolCode, enroll: &Enroll) -> Result<Exit, Note> {
    let facility: Option<UnitCode> = match enroll.facility.as_deref().map(str::parse).transpose() {
        Ok(facility) => facility,
        Err(error) => {
            ui.tell(&note!(Error, "bad_facility", "{error}", "{error}"));
            return Ok(Exit::Usage);
        }
    };
    let deadline = Instant::now() + enroll.timeout.0;
    patiently(|| Identity::begin(&ui.data_dir, code, facility.clone()))?;
    let driver = open_driver(&ui.data_dir)?;
    let handle = driver.handle();
    let waited = runtime()?.block_on(async move {
        let (tell, told) = tokio::sync::oneshot::channel();
        let stop = async move {
            let waited = wait(&handle, 0, deadline, false).await;
            // Only this function listens, and it does until the driver has stopped.
            let _ = tell.send(waited);
        };
        driver.run(stop).await?;
        told.await.map_err(|_| crate::core::not_enrolled())
    })?;
    if !matches!(waited, Waited::Settled) {
        return Ok(end(ui, waited));
    }
    let mut identity = Identity::open(&ui.data_dir)?.ok_or_else(crate::core::not_enrolled)?;
    let present = identity.present().ok_or_else(crate::core::not_enrolled)?;
    let context = identity.context(present)?;
    let offer = Offer {
        context: present,
        catalogue: context.catalogue.hash,
        facilities: context.facilities.to_vec(),
    };
    welcome(ui, &identity, &offer);
    Ok(Exit::Done)
}

fn welcome(ui: &Ui, identity: &Identity, offer: &Offer) {
    let agent = identity.agent();
    let (home, count) = (&offer.facilities[0], offer.facilities.len());
    let (code, name, place) = (&home.code, &home.name, &home.place);
    if ui.format == super::args::Format::Json {
        show::json(&serde_json::json!({
            "agent": agent.to_string(), "home": code.to_string(), "facilities": count,
        }));
    }
    ui.say(
        &format!("已注册：终端{agent}，{place} {name}（{code}），可填报{count}个机构。现在可以录入。"),
        &format!(
            "Enrolled: agent {agent} for {place} {name} ({code}), {count} facilities. Recording can begin."
        ),
    );
}
