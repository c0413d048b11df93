//! `sync` and `run`: the agent on the line.

use std::time::{Duration, Instant};

use banyan_shared::wire::EnrolRefusal;

use super::{Exit, Ui, open_driver, runtime};
use crate::command::{Command, Reply, SyncState};
use crate::driver::Handle;
use crate::local;
use crate::note::Note;

/// How often a waiting command looks.
const LOOK: Duration = Duration::from_millis(50);

/// How a wait for the centre ended.
pub(crate) enum Waited {
    Settled,
    Refused(EnrolRefusal),
    Late(SyncState),
    Failed(Note),
}

/// Sends what waits and hears what the centre holds.
pub(crate) fn run(ui: &Ui, timeout: Duration) -> Exit {
    let deadline = Instant::now() + timeout;
    if let Some(reply) = local::ask(&ui.data_dir, &Command::Sync) {
        let since = match reply {
            Reply::Sync(state) => state.hellos,
            other => return super::show::unexpected(ui, other),
        };
        return end(ui, wait_for_running(ui, since, deadline));
    }
    let waited = runtime().and_then(|runtime| {
        let driver = open_driver(&ui.data_dir)?;
        let handle = driver.handle();
        runtime.block_on(async move {
            // As with a service: what the centre said last time is forgotten first.
            if let Reply::Failed(note) = handle.handle(Command::Sync).await {
                return Err(note);
            }
            let (tell, told) = tokio::sync::oneshot::channel();
            let stop = async move {
                let waited = wait(&handle, 0, deadline, true).await;
                // Only this function listens, and it does until the driver has stopped.
                let _ = tell.send(waited);
            };
            driver.run(stop).await?;
            Ok(told.await.unwrap_or_else(|_| Waited::Failed(crate::core::other_version())))
        })
    });
    end(ui, waited.unwrap_or_else(Waited::Failed))
}

/// Waits until a hello after the `since`th was answered and, if `all`, every entry has a receipt.
pub(crate) async fn wait(handle: &Handle, since: u64, deadline: Instant, all: bool) -> Waited {
    loop {
        match handle.handle(Command::SyncState).await {
            Reply::Sync(state) => {
                let heard = state.enrolled && state.hellos > since;
                if heard && (state.waiting == 0 || !all) {
                    return Waited::Settled;
                }
                if let Some(refusal) = state.refusal {
                    return Waited::Refused(refusal);
                }
                if Instant::now() >= deadline {
                    return Waited::Late(state);
                }
            }
            Reply::Failed(note) => return Waited::Failed(note),
            _ => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn wait_for_running(ui: &Ui, mut since: u64, deadline: Instant) -> Waited {
    let mut last = None;
    loop {
        match local::ask(&ui.data_dir, &Command::SyncState) {
            Some(Reply::Sync(state)) => {
                // The service was started anew meanwhile, and counts from the beginning.
                if state.hellos < since {
                    since = 0;
                }
                if state.enrolled && state.hellos > since && state.waiting == 0 {
                    return Waited::Settled;
                }
                if let Some(refusal) = state.refusal {
                    return Waited::Refused(refusal);
                }
                last = Some(state);
            }
            Some(Reply::Failed(note)) => return Waited::Failed(note),
            _ => {}
        }
        if Instant::now() >= deadline {
            return match last {
                Some(state) => Waited::Late(state),
                None => Waited::Failed(crate::note::note!(
                    Error,
                    "no_answer",
                    "正在运行的终端没有应答，请稍后重试",
                    "the running agent does not answer: try again later"
                )),
            };
        }
        std::thread::sleep(LOOK);
    }
}

/// Says how it ended.
pub(crate) fn end(ui: &Ui, waited: Waited) -> Exit {
    match waited {
        Waited::Settled => {
            ui.say("已同步：全部收到回执。", "In sync: everything has a receipt.");
            Exit::Done
        }
        Waited::Refused(refusal) => {
            let (code, text) = (refusal.code(), refusal.text(ui.lang));
            ui.say(
                &format!("中心未接受本终端：{text} [{code}]"),
                &format!("The centre does not accept this agent: {text} [{code}]"),
            );
            if refusal == EnrolRefusal::Waiting { Exit::Late } else { Exit::Failed }
        }
        Waited::Late(state) => {
            let (waiting, detail) = (state.waiting, state.detail.unwrap_or_default());
            if state.hellos == 0 {
                ui.say(
                    &format!("未能连上中心（{detail}），{waiting}条待上报；数据已安全保存在本机，联网后会自动上报。"),
                    &format!(
                        "No line to the centre ({detail}); {waiting} entries wait. They are safe on \
                         this machine and go when there is one."
                    ),
                );
            } else {
                ui.say(
                    &format!("时间到，还有{waiting}条未收到回执；稍后再试。{detail}"),
                    &format!("Time is up and {waiting} entries have no receipt yet; try again later. {detail}"),
                );
            }
            Exit::Late
        }
        Waited::Failed(note) => {
            ui.tell(&note);
            Exit::Failed
        }
    }
}

/// Runs until it is told to stop.
pub(crate) fn serve(ui: &Ui) -> Exit {
    let result = runtime().and_then(|runtime| {
        let driver = open_driver(&ui.data_dir)?;
        ui.say("终端正在运行，按 Ctrl-C 停止。", "The agent is running; Ctrl-C stops it.");
        runtime.block_on(driver.run(stop_signal()))
    });
    match result {
        Ok(()) => Exit::Done,
        Err(note) => {
            ui.tell(&note);
            Exit::Failed
        }
    }
}

/// Done when the process is asked to end.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        // Nothing to listen to: run until killed, which loses nothing.
        std::future::pending::<()>().await;
    }
}
