//! Sockets: limits, headers, crooked requests, TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;

#[test]
fn every_answer_carries_the_headers() {
    let centre = Centre::new();
    let site = centre.serve(LOCAL);
    for path in ["/", "/login", "/v1/health", "/place/none", "/nowhere", "/?q=A"] {
        let answer = site.get(path);
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "{path}: not without TLS");
    }
}

/// What the other end says to these bytes until it closes.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may close before it has read everything.
    let _ = socket.write_all(bytes);
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn oversized_and_crooked_requests_are_turned_away() {
    let centre = Centre::new();
    let site = centre.serve(LOCAL);
    let head = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    assert!(raw(site.address, format!("{head}\r\n").as_bytes()).starts_with("HTTP/1.1 200"));
    let long = format!("{head}x: {}\r\n\r\n", "a".repeat(64 << 10));
    assert!(!raw(site.address, long.as_bytes()).contains(" 200 "));
    let many: String = (0..100).map(|n| format!("x{n}: 1\r\n")).collect();
    assert!(!raw(site.address, format!("{head}{many}\r\n").as_bytes()).contains(" 200 "));
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(64 << 10));
    assert!(!raw(site.address, long.as_bytes()).contains(" 200 "));
    for path in [
        "/../../../../etc/passwd",
        "/place/..%2f..%2f..%2fetc%2fpasswd",
        "/place/%2e%2e/%2e%2e/etc/passwd",
        "/report/..%2f/..%5c/%00",
        "/list/C1/..%2f..%2fkeys%2foperating.key",
        "//etc/passwd",
        "/run/admin.token",
        "/access/accounts.json",
        "/place/%ff%fe",
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let said = raw(site.address, request.as_bytes());
        let status = said.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "400" | "404"), "{path}: {said}");
        assert!(!said.contains("root:") && !said.contains(ADMIN_TOKEN), "{path}");
    }
    // Bodies: by role, and nothing at all from nobody.
    let viewer = centre.token("viewer", "");
    let large = json!({ "command": "query", "unit": "x".repeat(100 << 10), "period": "2026-01" });
    assert_eq!(site.bearer(&viewer).call(&large).status, 413);
    let operator = centre.token("operator", "");
    assert_eq!(site.bearer(&operator).call(&large).status, 400);
    let name = "x".repeat(100 << 10);
    let form =
        site.with("origin", &site.origin()).form("/login", &[("name", &name), ("password", "")]);
    assert_eq!(form.status, 413);
    assert_eq!(site.get("/v1/health").status, 200, "and others are served");
}

#[test]
fn whoever_says_nothing_is_cut_off_and_others_are_served() {
    let centre = Centre::new();
    let head = Duration::from_millis(300);
    let limits = Limits { connections: 20, of_address: 10, head, handshake: head };
    let site = centre.serve_with(LOCAL, None, limits);
    let silent: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect(site.address).unwrap()).collect();
    for mut socket in silent {
        // Slowly, a byte at a time, is no better than nothing.
        let _ = socket.write_all(b"GET");
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
    }
    // Anyone of the same address; again if the machine is so slow that this one was silent too.
    let asks = b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let begun = Instant::now();
    while !raw(site.address, asks).starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody is served");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn tls_is_ours_to_end_and_old_versions_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls;
    let centre = Centre::new();
    centre.user("root", "admin", "");
    let names = ["county.example".to_owned(), "127.0.0.1".to_owned()];
    let (config, fingerprint) = self_made(centre.service.dir(), &names).unwrap();
    assert_eq!(fingerprint.len(), 32 * 3 - 1);
    let again = self_made(centre.service.dir(), &names).unwrap().1;
    assert_eq!(again, fingerprint, "made once");
    let listening = Listening { tls: true, local: false, only_server: false };
    let site = centre.serve_with(listening, Some(config), Limits::default());
    // Silent in the handshake, TLS 1.0, and plain text: nothing comes of any.
    drop(TcpStream::connect(site.address).unwrap());
    let silent = TcpStream::connect(site.address).unwrap();
    let hello_of_1_0: &[u8] = &[
        0x16, 3, 1, 0, 0x2d, 1, 0, 0, 0x29, 3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0, 0, 2, 0, 0x2f,
        1, 0,
    ];
    let alert = raw(site.address, hello_of_1_0);
    assert!(alert.is_empty() || alert.as_bytes()[0] == 0x15, "{alert:?}");
    assert!(!raw(site.address, b"GET /v1/health HTTP/1.1\r\n\r\n").contains("HTTP"));

    let pem = std::fs::read(centre.service.dir().join("access/http-cert.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for one in
        <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::pem_slice_iter(
            &pem,
        )
    {
        roots.add(one.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let said = centre.runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(site.address).await.unwrap();
        let name = "county.example".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let mut tls = connector.connect(name, tcp).await.unwrap();
        let request = "GET /place/A HTTP/1.1\r\nhost: county.example\r\nconnection: close\r\n\r\n";
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // Some ends leave out the last word of TLS.
        let _ = tls.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    });
    assert!(said.starts_with("HTTP/1.1 303"), "{said}");
    assert!(said.contains("strict-transport-security: max-age="), "{said}");
    drop(silent);
}
