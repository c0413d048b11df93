//! Why the queue could not do what was asked.

use std::path::{Path, PathBuf};

use banyan_shared::catalogue::Lang;
use banyan_shared::ids::{Epoch, Seq};

/// Why the queue could not do what was asked. Nothing that was acknowledged before is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another process has the queue open.
    #[error("{path}: the queue is open in another process; use the running service, or stop it")]
    Locked {
        /// The queue's directory.
        path: PathBuf,
    },
    /// The disk is full. Free some space and open the queue again.
    #[error("{path}: the disk is full, the report was not saved; free some space and try again")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The system refused a file operation.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// What was being done, for example `sync`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The store failed under way. Open the queue again: it salvages what is readable.
    #[error("{path}: the store failed ({what}); open the queue again")]
    Broken {
        /// The store.
        path: PathBuf,
        /// What was seen.
        what: String,
    },
    /// Something larger than its limit.
    #[error("{what} of {size} is above the limit of {limit}")]
    TooLarge {
        /// What was too large, for example `an entry's payload in bytes`.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The queue holds as many unconfirmed entries as it may; nothing was saved.
    #[error("the queue is full: {limit} entries wait for a receipt; connect and sync first")]
    Full {
        /// The limit.
        limit: u64,
    },
    /// The entry or epoch named is not one this queue can act on.
    #[error("entry {epoch}/{seq}: {reason}")]
    NotFound {
        /// The epoch named.
        epoch: Epoch,
        /// The number named; 0 for the epoch as a whole.
        seq: Seq,
        /// What is the matter.
        reason: &'static str,
    },
}

impl QueueError {
    /// An error of the system, told apart where a person must act differently.
    pub(super) fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.to_owned();
        match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => QueueError::DiskFull { path },
            _ => QueueError::Io { doing, path, source },
        }
    }

    /// What to tell the person, in their language.
    pub fn text(&self, lang: Lang) -> String {
        if lang == Lang::En {
            return self.to_string();
        }
        match self {
            QueueError::Locked { path } => {
                format!(
                    "{}：队列已被另一个程序打开；请使用正在运行的服务，或先停止它",
                    path.display()
                )
            }
            QueueError::DiskFull { path } => {
                format!("{}：磁盘已满，报表未保存；请清理空间后重试", path.display())
            }
            QueueError::Io { doing, path, source } => {
                format!("{}：文件操作失败（{doing}）：{source}", path.display())
            }
            QueueError::Broken { path, what } => {
                format!("{}：存储出错（{what}）；请重新打开队列", path.display())
            }
            QueueError::TooLarge { what, size, limit } => {
                format!("超过上限：{what} {size}，上限 {limit}")
            }
            QueueError::Full { limit } => {
                format!("队列已满：{limit} 条记录尚未收到回执；请先联网同步")
            }
            QueueError::NotFound { epoch, seq, reason } => {
                format!("记录 {epoch}/{seq}：{reason}")
            }
        }
    }
}
