//! What to tell people of a link that ended or was not made.
//!
//! What the system or a library says of it comes as it is, in brackets.

use super::{DownReason, LinkError, Refused};
use crate::note::{Note, note};

impl Refused {
    fn zh(self) -> &'static str {
        match self {
            Refused::NoReason => "未说明原因",
            Refused::Version => "协议版本不符",
            Refused::Id => "不认可终端编号",
            Refused::Unavailable => "暂不可用",
            Refused::Password => "用户名或密码有误",
        }
    }
}

impl DownReason {
    /// What to tell people.
    pub fn note(&self) -> Note {
        let en = self.to_string();
        let (code, zh) = match self {
            DownReason::Refused(why) => ("refused", format!("中心拒绝了连接：{}", why.zh())),
            DownReason::NotAuthorised => ("not_authorised", "中心不接纳本终端".to_owned()),
            DownReason::Tls(error) => ("tls", format!("与中心的安全连接未能建立（{error}）")),
            DownReason::SubscriptionRefused => {
                ("subscription_refused", "中心拒绝了本终端的订阅".to_owned())
            }
            DownReason::ConnectTimeout => ("connect_timeout", "中心未及时应答".to_owned()),
            DownReason::Network(error) => ("network", format!("网络不通（{error}）")),
            DownReason::Silent => ("silent", "中心中途没有了应答".to_owned()),
            DownReason::Protocol(error) => ("protocol", format!("对方不是中心（{error}）")),
            DownReason::Closed => ("closed", "连接已关闭".to_owned()),
        };
        note!(Warning, code, "{zh}", "{en}")
    }
}

impl LinkError {
    /// What to tell people.
    pub fn note(&self) -> Note {
        let en = self.to_string();
        let (code, zh) = match self {
            LinkError::Address { address, reason } => {
                ("bad_address", format!("中心地址“{address}”有误（{reason}）"))
            }
            LinkError::NoTls => ("no_tls", "中心地址要求加密，而本机没有密钥".to_owned()),
            LinkError::TooLarge { bytes } => ("too_large", format!("报文过大（{bytes}）")),
            LinkError::Timeout => ("no_room", "线路拥堵".to_owned()),
            LinkError::Ended => ("closed", "连接已关闭".to_owned()),
        };
        note!(Warning, code, "{zh}", "{en}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_sentences_hold_no_english_but_what_others_said() {
        let mut notes = Vec::new();
        for refused in Refused::ALL {
            notes.push(DownReason::Refused(refused).note());
        }
        let said = || "§".to_owned();
        for reason in [
            DownReason::NotAuthorised,
            DownReason::Tls(said()),
            DownReason::SubscriptionRefused,
            DownReason::ConnectTimeout,
            DownReason::Network(said()),
            DownReason::Silent,
            DownReason::Protocol(said()),
            DownReason::Closed,
        ] {
            notes.push(reason.note());
        }
        for error in [
            LinkError::NoTls,
            LinkError::TooLarge { bytes: 9 },
            LinkError::Timeout,
            LinkError::Ended,
        ] {
            notes.push(error.note());
        }
        for note in notes {
            assert!(!note.zh.chars().any(|c| c.is_ascii_alphabetic()), "{note:?}");
            assert!(note.en.is_ascii() || note.en.contains('§'), "{note:?}");
        }
    }
}
