//! What the front door has done, counted: connections, refusals by cause, messages, bytes.

use std::sync::atomic::{AtomicU64, Ordering};

use banyan_shared::ids::Millis;

use crate::seldom::Seldom;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $zh:literal, $en:literal;)*) => {
        /// Why the door refused a connection or ended a session.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// All causes, in the order they are shown.
            pub const ALL: &'static [Cause] = &[$(Cause::$name),*];

            /// The cause's stable code.
            pub fn code(self) -> &'static str {
                match self { $(Cause::$name => $code),* }
            }

            /// The cause in Chinese.
            pub fn zh(self) -> &'static str {
                match self { $(Cause::$name => $zh),* }
            }

            /// The cause in English.
            pub fn en(self) -> &'static str {
                match self { $(Cause::$name => $en),* }
            }
        }
    };
}

causes! {
    /// The door holds as many connections as it may.
    DoorFull = "door_full", "连接总数已满", "the door holds as many connections as it may";
    /// The address holds as many connections as one address may.
    AddressFull = "address_full", "该地址连接数已满", "the address holds as many connections as one may";
    /// As many connections have proved nothing yet as may, in all.
    UnprovenFull = "unproven_full", "未完成身份验证的连接已满", "as many connections have proved nothing yet as may";
    /// No TLS handshake came about: noise, another version, a damaged certificate.
    Tls = "tls", "TLS 握手失败", "the TLS handshake failed";
    /// No client certificate.
    NoCertificate = "no_certificate", "未出示客户端证书", "no client certificate was shown";
    /// A certificate this centre has not issued.
    UnknownCertificate = "unknown_certificate", "证书不是本中心签发", "the certificate is not of this centre";
    /// A certificate expired for longer than the grace.
    ExpiredCertificate = "expired_certificate", "证书已过期且超过宽限期", "the certificate has expired and its grace is over";
    /// The client id is not of the key shown.
    AnothersId = "anothers_id", "客户端标识与密钥不符", "the client id is not of the key shown";
    /// The agent has been revoked.
    Revoked = "revoked", "终端已被注销", "the agent has been revoked";
    /// Something else than enrolling, or too much of it, without an issued certificate.
    FirstContact = "first_contact", "尚未取得证书的终端只能注册", "without an issued certificate an agent can only enrol";
    /// No whole TLS handshake and CONNECT in time.
    ConnectTimeout = "connect_timeout", "未按时发送 CONNECT", "no whole CONNECT came in time";
    /// The bytes are not MQTT 3.1.1.
    Malformed = "malformed", "不是有效的 MQTT 3.1.1 报文", "the bytes are not MQTT 3.1.1";
    /// A packet larger than allowed.
    TooLarge = "too_large", "报文过大", "a packet is larger than allowed";
    /// Another version of MQTT.
    ProtocolVersion = "protocol_version", "只接受 MQTT 3.1.1", "only MQTT 3.1.1 is accepted";
    /// The client id is not an agent's.
    ClientId = "client_id", "客户端标识不是终端编号", "the client id is not an agent id";
    /// A session that should outlive its connection.
    PersistentSession = "persistent_session", "不接受持久会话", "sessions that outlive their connection are not accepted";
    /// A last will.
    Will = "will", "不接受遗嘱消息", "a last will is not accepted";
    /// The session that holds the id did not end in time.
    TakeoverTimeout = "takeover_timeout", "原有会话未及时结束", "the session that holds the id did not end in time";
    /// Published elsewhere than on the agent's own topic.
    Topic = "topic", "只能发布到本终端的主题", "an agent publishes on its own topic only";
    /// A retained message.
    Retain = "retain", "不接受保留消息", "retained messages are not accepted";
    /// Quality of service 2.
    Qos = "qos", "不接受 QoS 2", "quality of service 2 is not accepted";
    /// Too many filters in one SUBSCRIBE.
    Filters = "filters", "一次订阅的主题过多", "one SUBSCRIBE names too many filters";
    /// A packet that has no place there.
    Unexpected = "unexpected", "报文类型不应出现", "a packet came that has no place there";
    /// A packet was begun and not finished in time.
    PacketTimeout = "packet_timeout", "报文未按时发完", "a packet was begun and not finished in time";
    /// Silent for more than one and a half keep-alives.
    Silent = "silent", "超时未活动", "silent for longer than its keep-alive allows";
    /// Did not read what it was sent.
    WriteTimeout = "write_timeout", "不接收发送的数据", "does not read what it is sent";
    /// The way to the intake is closed.
    Unavailable = "unavailable", "服务正在停止", "the service is ending";
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The door's counters; all but `connections`, `unproven` and `sessions` only grow.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
            refused: [Seldom; Cause::ALL.len()],
        }

        /// The counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct CounterValues {
            $($(#[$doc])* pub $name: u64,)*
            /// Refusals, those that happened, by cause.
            pub refused: Vec<(Cause, u64)>,
        }

        impl CounterValues {
            /// Names and values, without the refusals.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl Counters {
            /// The counters now.
            pub fn values(&self) -> CounterValues {
                CounterValues {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    refused: Cause::ALL
                        .iter()
                        .map(|&cause| (cause, self.refused(cause)))
                        .filter(|&(_, n)| n > 0)
                        .collect(),
                }
            }
        }
    };
}

counters! {
    /// Connections taken.
    accepted,
    /// Connections open now, those before CONNECT included.
    connections,
    /// Connections open now that have not proved yet who they are.
    unproven,
    /// TLS handshakes finished.
    handshakes,
    /// Of these, those that resumed a session.
    resumed,
    /// Sessions open now.
    sessions,
    /// Sessions that gave way to a newer connection of the same agent.
    taken_over,
    /// Times that take-overs showed an identity used twice.
    contested,
    /// Times that a session was made to wait because it sent too fast.
    slowed,
    /// Times that a session was made to wait because enough of its agent was on its way to the intake.
    held_back,
    /// Filters refused in a SUBSCRIBE.
    filters_refused,
    /// Bytes read.
    bytes_in,
    /// Bytes written.
    bytes_out,
    /// Messages handed to the broker.
    messages_up,
    /// Messages written to agents.
    messages_down,
    /// Messages for an agent dropped because its session was not keeping up.
    down_dropped,
    /// Messages for an agent that had no session, or had not subscribed.
    down_absent,
    /// Acknowledgements nobody asked for.
    acks_unsolicited,
    /// Session tasks that panicked: a defect; the other sessions go on.
    panics,
}

impl Counters {
    /// Counts a refusal. If it is time to tell of the cause: how often it has occurred since the last time.
    pub(crate) fn refuse(&self, cause: Cause, now: Millis) -> Option<u64> {
        self.refused[cause as usize].due(now)
    }

    /// How often this cause has occurred.
    pub fn refused(&self, cause: Cause) -> u64 {
        self.refused[cause as usize].count()
    }
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Counts something open for as long as it lives.
pub(crate) struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    pub(crate) fn new(counter: &'a AtomicU64) -> Self {
        add(counter, 1);
        Self(counter)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
