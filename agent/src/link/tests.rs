use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

const AGENT: AgentId = AgentId([1, 2, 3, 4, 5, 6]);

/// The times are long: the tests that wait for their end have short ones.
fn config(address: impl ToString) -> LinkConfig {
    LinkConfig {
        connect_timeout: Duration::from_secs(10),
        publish_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(60),
        ..LinkConfig::new(address.to_string(), AGENT)
    }
}

async fn listen() -> (TcpListener, LinkConfig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(listener.local_addr().unwrap());
    (listener, config)
}

async fn next(link: &mut Link) -> LinkEvent {
    timeout(Duration::from_secs(60), link.events.recv()).await.unwrap().unwrap()
}

/// Takes the connection and reads the first packet.
async fn take(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut first = [0; 2];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first[0], 0x10);
    let mut rest = vec![0; usize::from(first[1])];
    stream.read_exact(&mut rest).await.unwrap();
    // Level 4, clean session and nothing else, a keep-alive of 1 s or 60, the agent's id.
    assert_eq!(rest[..8], *b"\0\x04MQTT\x04\x02");
    assert!(matches!(rest[8..10], [0, 1 | 60]), "{rest:?}");
    assert_eq!(rest[10..], *b"\0\x0c010203040506");
    stream
}

/// Answers the CONNECT and the SUBSCRIBE with `code`.
async fn admit(stream: &mut TcpStream, code: u8) {
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    let topic = topic::down(AGENT);
    let mut subscribe = vec![0; 2 + 2 + 2 + topic.len() + 1];
    stream.read_exact(&mut subscribe).await.unwrap();
    assert_eq!(subscribe[0], 0x82);
    assert_eq!(&subscribe[6..6 + topic.len()], topic.as_bytes());
    stream.write_all(&[0x90, 3, subscribe[2], subscribe[3], code]).await.unwrap();
}

#[tokio::test]
async fn an_address_that_cannot_be_is_told_and_tls_needs_a_key() {
    let refused = |address: &str| Link::connect(LinkConfig::new(address, AGENT)).unwrap_err();
    let (address, reason) = ("::1:1883".to_owned(), AddressError::NoBrackets);
    assert_eq!(refused("::1:1883"), LinkError::Address { address, reason });
    // Never in the clear to another machine, whoever asks for it.
    let (address, reason) = ("mqtt://10.1.2.3:1883".to_owned(), AddressError::Plain);
    assert_eq!(refused("mqtt://10.1.2.3:1883"), LinkError::Address { address, reason });
    assert_eq!(refused("10.1.2.3:8883"), LinkError::NoTls);
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    // Bound and not listened on: nobody else is given the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut link = Link::connect(config(socket.local_addr().unwrap())).unwrap();
    assert!(matches!(next(&mut link).await, LinkEvent::Down(DownReason::Network(_))));
    assert_eq!(link.events.recv().await, None);
    assert_eq!(link.publish(vec![1]).await, Err(LinkError::Ended));
}

#[tokio::test]
async fn silence_ends_the_wait_at_every_stage() {
    let impatient = |config| LinkConfig { connect_timeout: Duration::from_millis(500), ..config };
    // No CONNACK.
    let (listener, config) = listen().await;
    let config = impatient(config);
    let mut link = Link::connect(config).unwrap();
    let _stream = take(&listener).await;
    assert_eq!(next(&mut link).await, LinkEvent::Down(DownReason::ConnectTimeout));
    // No SUBACK.
    let (listener, config) = listen().await;
    let config = impatient(config);
    let mut link = Link::connect(config).unwrap();
    let mut stream = take(&listener).await;
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    assert_eq!(next(&mut link).await, LinkEvent::Down(DownReason::ConnectTimeout));
    // No PINGRESP: half-open links are found without sending anything.
    let (listener, config) = listen().await;
    let config = LinkConfig { keep_alive: Duration::from_secs(1), ..config };
    let mut link = Link::connect(config).unwrap();
    let mut stream = take(&listener).await;
    admit(&mut stream, 0).await;
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    assert_eq!(next(&mut link).await, LinkEvent::Down(DownReason::Silent));
}

#[tokio::test]
async fn refusals_say_what_was_refused() {
    let (listener, config) = listen().await;
    let mut link = Link::connect(config.clone()).unwrap();
    take(&listener).await.write_all(&[0x20, 2, 0, 3]).await.unwrap();
    let refused = DownReason::Refused(Refused::Unavailable);
    assert_eq!(next(&mut link).await, LinkEvent::Down(refused));

    let mut link = Link::connect(config.clone()).unwrap();
    admit(&mut take(&listener).await, 0x80).await;
    assert_eq!(next(&mut link).await, LinkEvent::Down(DownReason::SubscriptionRefused));

    // What came right before the end is not lost with it.
    let mut link = Link::connect(config.clone()).unwrap();
    let mut stream = take(&listener).await;
    admit(&mut stream, 0).await;
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    let topic = topic::down(AGENT);
    let length = u8::try_from(2 + topic.len() + 2).unwrap();
    let packet = [&[0x30, length, 0, topic.len() as u8], topic.as_bytes(), b"ok"].concat();
    stream.write_all(&packet).await.unwrap();
    drop(stream);
    assert_eq!(next(&mut link).await, LinkEvent::Message(b"ok".to_vec()));
    assert!(matches!(next(&mut link).await, LinkEvent::Down(DownReason::Network(_))));

    let mut link = Link::connect(config).unwrap();
    // A web server. Held open: closed with the CONNECT unread, the line would be reset and the words lost.
    let mut stream = take(&listener).await;
    let words = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Connection: close\r\n\r\n400 Bad Request";
    stream.write_all(words).await.unwrap();
    assert!(matches!(next(&mut link).await, LinkEvent::Down(DownReason::Protocol(_))));
}

#[tokio::test]
async fn publishing_never_waits_for_ever() {
    let (listener, config) = listen().await;
    let config = LinkConfig { publish_timeout: Duration::from_millis(300), ..config };
    let mut link = Link::connect(config).unwrap();
    let mut stream = take(&listener).await;
    admit(&mut stream, 0).await;
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    let large = vec![0; PAYLOAD_BYTES_MAX];
    let bytes = large.len() + 1;
    assert_eq!(link.publish(vec![0; bytes]).await, Err(LinkError::TooLarge { bytes }));
    // Nothing is acknowledged: the window and the queue fill, then the caller is told.
    let error = loop {
        if let Err(error) = link.publish(vec![1; 10]).await {
            break error;
        }
    };
    assert_eq!(error, LinkError::Timeout);
}

#[tokio::test]
async fn closing_sends_what_was_handed_over_and_says_good_bye() {
    let (listener, config) = listen().await;
    let mut link = Link::connect(config).unwrap();
    let mut stream = take(&listener).await;
    admit(&mut stream, 0).await;
    assert_eq!(next(&mut link).await, LinkEvent::Up);
    link.publish(b"the last word".to_vec()).await.unwrap();
    link.close().await;
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert!(got.windows(13).any(|bytes| bytes == b"the last word"));
    assert!(got.ends_with(&[0xe0, 0]), "{got:?}");
}
