//! Clinics with a real `banyan-agent` program each: commands typed one by one, copied from paper, read from files;
//! a service that is killed while somebody types.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use banyan_shared::catalogue::Catalogue;
use banyan_shared::ids::AgentId;
use banyan_shared::report::{How, Value};

use crate::counts::{Plan, Typed};
use crate::harness::{Agent, Process, until};

/// How long a service may take to be there for commands.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How a clinic works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The service runs, reports are typed by command, and the service is killed meanwhile.
    Service,
    /// Reports are typed by command, and sent when somebody thinks of it.
    Commands,
    /// As [`Way::Commands`], from notes on paper.
    Paper,
    /// A file for each go.
    Files,
}

/// A clinic.
pub(super) struct Clinic {
    pub(super) agent: Agent,
    pub(super) id: AgentId,
    pub(super) plan: Plan,
    pub(super) way: Way,
    service: Option<Process>,
}

impl Clinic {
    /// Enrols the agent by a code or file.
    pub(super) fn enrol(agent: Agent, plan: Plan, way: Way, code: &str) -> Result<Clinic> {
        agent.ask(&["enroll", code])?;
        let status = agent.status()?;
        let id = status["agent"].as_str().context("status names the agent")?.parse()?;
        let mut clinic = Clinic { agent, id, plan, way, service: None };
        if way == Way::Service {
            clinic.start()?;
        }
        Ok(clinic)
    }

    /// How its reports count.
    pub(super) fn how(&self, typed: &Typed) -> How {
        match self.way {
            Way::Files if !typed.withdraw => How::Import,
            Way::Paper if !typed.withdraw => How::PaperLater,
            _ => typed.how(),
        }
    }

    fn start(&mut self) -> Result<()> {
        let service = self.agent.start(&["run"])?;
        let local = self.agent.dir().join("run/local.json");
        until("the agent's service is ready", READY_WITHIN, || {
            service.check()?;
            Ok(local.exists().then_some(()))
        })?;
        self.service = Some(service);
        Ok(())
    }

    fn arguments(&self, catalogue: &Catalogue, typed: &Typed) -> Vec<String> {
        let form = &catalogue.forms[typed.form.at()];
        let verb = if typed.withdraw { "withdraw" } else { "record" };
        let mut arguments = vec![verb.to_owned(), form.code.to_string(), typed.period.to_string()];
        if typed.closed {
            arguments.push("--closed".into());
        } else {
            for (line, value) in &typed.values {
                let element = &catalogue.elements[form.lines[*line].element.at()].code;
                arguments.push(format!("{element}={}", written(*value)));
            }
        }
        if self.way == Way::Paper && !typed.withdraw {
            arguments.extend(["--how".into(), "paper_later".into()]);
        }
        if let Some(reason) = typed.reason {
            arguments.extend(["--reason".into(), reason.code().into()]);
        }
        if typed.facility != self.plan.home {
            arguments.extend(["--facility".into(), typed.facility.to_string()]);
        }
        arguments
    }

    fn say(&self, catalogue: &Catalogue, typed: &Typed) -> Result<()> {
        let arguments = self.arguments(catalogue, typed);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.agent.ask(&arguments).map(drop)
    }

    /// Types what is due in one go; with `kill`, whatever runs is killed in the middle and typing goes on.
    /// Gives what was acknowledged as saved.
    pub(super) fn type_stage(
        &mut self,
        catalogue: &Catalogue,
        stage: usize,
        kill: bool,
    ) -> Result<Vec<Typed>> {
        let due: Vec<Typed> =
            self.plan.typed.iter().filter(|typed| typed.stage == stage).cloned().collect();
        if self.way == Way::Files {
            self.import(catalogue, stage, &due, kill)?;
            return Ok(due);
        }
        for (at, typed) in due.iter().enumerate() {
            if kill && at == due.len() / 2 {
                self.kill_while_typing(catalogue, typed)?;
            }
            // Again after a kill: what was saved already is only said again.
            self.say(catalogue, typed)?;
        }
        Ok(due)
    }

    /// Kills the command and the service while a report is being typed.
    fn kill_while_typing(&mut self, catalogue: &Catalogue, typed: &Typed) -> Result<()> {
        let arguments = self.arguments(catalogue, typed);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let command = self.agent.start(&arguments)?;
        if let Some(service) = self.service.take() {
            service.kill9()?;
            command.kill9()?;
            return self.start();
        }
        command.kill9()
    }

    /// Imports what is due, and second thoughts from a file of their own.
    fn import(&self, catalogue: &Catalogue, stage: usize, due: &[Typed], kill: bool) -> Result<()> {
        for second in [false, true] {
            let mut csv = csv::Writer::from_writer(Vec::new());
            csv.write_record(["facility", "form", "period", "element", "value", "reason"])?;
            let mut rows = 0;
            for typed in due.iter().filter(|t| !t.withdraw && t.reason.is_some() == second) {
                let form = &catalogue.forms[typed.form.at()];
                for (line, value) in &typed.values {
                    let element = catalogue.elements[form.lines[*line].element.at()].code.as_str();
                    csv.write_record([
                        typed.facility.as_str(),
                        form.code.as_str(),
                        &typed.period.to_string(),
                        element,
                        &written(*value),
                        typed.reason.map_or("", |reason| reason.code()),
                    ])?;
                    rows += 1;
                }
            }
            if rows == 0 {
                continue;
            }
            let path = self.agent.dir().with_extension(format!("{stage}-{second}.csv"));
            std::fs::write(&path, csv.into_inner()?)?;
            let path = path.to_str().context("the path is plain text")?;
            if kill && !second {
                self.agent.start(&["import", path])?.kill9()?;
            }
            // Again after a kill: what was saved already is only said again.
            self.agent.ask(&["import", path])?;
        }
        for typed in due.iter().filter(|typed| typed.withdraw) {
            self.say(catalogue, typed)?;
        }
        Ok(())
    }

    /// Sends everything.
    pub(super) fn sync(&self) -> Result<()> {
        // The first hello tells of what waits, the second that nothing does.
        for _ in 0..2 {
            self.agent.ask(&["sync", "--timeout", "90s"])?;
        }
        let status = self.agent.status()?;
        if status["waiting"] != 0 || status["refused"] != 0 || status["parked"] != 0 {
            bail!("{}: after sync: {status}", self.plan.home);
        }
        Ok(())
    }
}

fn written(value: Value) -> String {
    match value {
        Value::Number(n) => n.to_string(),
        Value::NotApplicable => "NA".into(),
        Value::Missing => String::new(),
    }
}
