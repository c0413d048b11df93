//! `serve`: front door, broker, intake and HTTP in one process, until SIGTERM or Ctrl-C.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use banyan_shared::address::MqttAddress;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_rustls::rustls::ServerConfig;

use crate::access::{Access, HttpListener, Listening, self_made, tls_config};
use crate::broker::external::{Dial, External, ExternalCounters, ExternalDownlink, Ways, external};
use crate::broker::{Broker, BrokerConfig, Downlink};
use crate::derived::checkpoints;
use crate::front_door::{Counters, DoorConfig, DoorTls, FrontDoor, Registry};
use crate::http::{self, Counted};
use crate::identity::{open_to_others, random, write_secret};
use crate::intake::told;
use crate::pages::Site;
use crate::service::{Service, keep_ready, system_clock};

/// Where agents connect unless told otherwise.
pub const MQTT_ADDR_DEFAULT: &str = "127.0.0.1:1883";
/// Where the API and the pages are unless told otherwise.
pub const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8080";

/// Where a running service is reached: `DIR/run/addresses.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The MQTT address.
    pub mqtt: String,
    /// Whether MQTT goes over TLS there.
    #[serde(default)]
    pub mqtt_tls: bool,
    /// The HTTP address.
    pub http: String,
    /// Where the command line goes, if that speaks TLS: a socket of this machine for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Where MQTT is taken, and how: `[mqtt://|mqtts://]IP:PORT`, port 0 for any. Without a scheme plain on a
/// loopback address and over TLS on any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqttListen {
    /// Whether over TLS.
    pub tls: bool,
    /// The address.
    pub addr: SocketAddr,
}

impl FromStr for MqttListen {
    type Err = String;

    fn from_str(text: &str) -> Result<MqttListen, String> {
        let (asked, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("mqtt", rest)) => (Some(false), rest),
            Some(("mqtts", rest)) => (Some(true), rest),
            Some((other, _)) => return Err(format!("scheme {other}: write mqtt:// or mqtts://")),
        };
        let addr: SocketAddr = rest
            .parse()
            .map_err(|_| format!("{rest:?} is not IP:PORT, for example 0.0.0.0:8883"))?;
        let tls = asked.unwrap_or(!addr.ip().is_loopback());
        if !tls && !addr.ip().is_loopback() {
            return Err(format!("plain MQTT is for loopback addresses only: write mqtts://{addr}"));
        }
        Ok(MqttListen { tls, addr })
    }
}

impl ServeOptions {
    /// The names of the server's certificate: what agents are told, what was asked for, where it listens,
    /// and this machine.
    fn names(&self) -> Vec<String> {
        let listens = self.mqtt.addr.ip();
        let told = self.public_mqtt.as_ref().map(|public| public.host.clone());
        let own = (!listens.is_unspecified()).then(|| listens.to_string());
        let mut names: Vec<String> = Vec::new();
        for name in told
            .into_iter()
            .chain(self.mqtt_names.clone())
            .chain(own)
            .chain(["localhost", "127.0.0.1", "::1"].map(str::to_owned))
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

fn run_dir(dir: &Path) -> PathBuf {
    dir.join("run")
}

fn addresses_file(dir: &Path) -> PathBuf {
    run_dir(dir).join("addresses.json")
}

fn public_file(dir: &Path) -> PathBuf {
    run_dir(dir).join("public.json")
}

fn last_file(dir: &Path) -> PathBuf {
    run_dir(dir).join("last-addresses.json")
}

/// Whoever waits for the file must not read where an earlier run was. Only for who holds the ledger: the file
/// is how a running service is found.
pub(crate) fn retire_addresses(dir: &Path) -> Result<()> {
    match std::fs::rename(addresses_file(dir), last_file(dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("putting the earlier run's addresses aside")
        }
        _ => Ok(()),
    }
}

fn token_file(dir: &Path) -> PathBuf {
    run_dir(dir).join("admin.token")
}

impl Addresses {
    /// Where the service runs, as far as the file tells: it is there from "ready" to a clean stop.
    pub fn read(dir: &Path) -> Option<Addresses> {
        serde_json::from_slice(&std::fs::read(addresses_file(dir)).ok()?).ok()
    }

    /// The MQTT address as agents are told it.
    pub(crate) fn for_agents(&self) -> String {
        let scheme = if self.mqtt_tls { "mqtts" } else { "mqtt" };
        let address = format!("{scheme}://{}", self.mqtt);
        // The shortest spelling: codes are typed by hand.
        address.parse::<MqttAddress>().map_or(address, |address| address.to_string())
    }

    /// Where it runs or ran last.
    pub fn last(dir: &Path) -> Option<Addresses> {
        let earlier = || serde_json::from_slice(&std::fs::read(last_file(dir)).ok()?).ok();
        Addresses::read(dir).or_else(earlier)
    }
}

/// What agents are told where it is not where the service listens: `DIR/run/public.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    /// The MQTT address written into codes and enrolment files.
    pub mqtt: String,
}

impl PublicAddress {
    /// What the file says, if the service was last started with a public address.
    pub fn read(dir: &Path) -> Option<PublicAddress> {
        serde_json::from_slice(&std::fs::read(public_file(dir)).ok()?).ok()
    }
}

fn set_public(dir: &Path, address: Option<String>) -> Result<()> {
    let path = public_file(dir);
    match address {
        Some(mqtt) => write_secret(&path, &serde_json::to_vec(&PublicAddress { mqtt })?),
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        },
    }
}

/// The administrator's token, which only the service's user can read.
pub fn token(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(token_file(dir)).ok()?;
    Some(text.trim().to_owned())
}

fn make_token(dir: &Path) -> Result<String> {
    if let Some(token) = token(dir).filter(|token| token.len() >= 32) {
        return Ok(token);
    }
    let token = data_encoding::HEXLOWER.encode(&random::<24>()?);
    write_secret(&token_file(dir), token.as_bytes())?;
    Ok(token)
}

/// How HTTP is protected on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HttpTls {
    /// Not at all: on this machine only.
    #[default]
    None,
    /// By a certificate chain and its key, in PEM files.
    Files(PathBuf, PathBuf),
    /// By a certificate made here for these names and addresses, and kept.
    SelfMade(Vec<String>),
}

/// Where and how a service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Where MQTT is taken.
    pub mqtt: MqttListen,
    /// Where the API and the pages are.
    pub http: SocketAddr,
    /// How HTTP is protected.
    pub http_tls: HttpTls,
    /// What agents are told in codes and enrolment files, if not where the service listens.
    pub public_mqtt: Option<MqttAddress>,
    /// Further names agents dial.
    pub mqtt_names: Vec<String>,
    /// An MQTT broker beside the door.
    pub broker: Option<BrokerAt>,
}

/// An external MQTT broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAt {
    /// Where the centre reaches it.
    pub address: MqttAddress,
    /// Where agents do, if elsewhere.
    pub public: Option<MqttAddress>,
}

impl BrokerAt {
    /// The address agents are told.
    fn told(&self) -> String {
        self.public.as_ref().unwrap_or(&self.address).to_string()
    }
}

/// The client of an external broker, before there is a service to serve.
struct Beside {
    at: BrokerAt,
    client: External,
    downlink: ExternalDownlink,
}

impl Beside {
    fn new(at: BrokerAt) -> Beside {
        let (client, downlink) = external();
        Beside { at, client, downlink }
    }

    /// The way down by both.
    fn ways(&self, broker: &Broker, registry: &Arc<Registry>) -> Arc<dyn Downlink> {
        Arc::new(Ways {
            door: broker.downlink(),
            registry: registry.clone(),
            broker: self.downlink.clone(),
            told: self.at.told(),
        })
    }

    fn counters(&self) -> Arc<ExternalCounters> {
        self.downlink.counters()
    }

    /// Connects in a task of its own until told to stop.
    fn start(
        self,
        broker: &Broker,
        service: &Service,
        stopped: watch::Receiver<bool>,
        watch: &Watch,
    ) -> tokio::task::JoinHandle<()> {
        let identity = service.identity();
        let dial = Dial { address: self.at.address, identity, clock: service.clock() };
        watch.spawn("the external broker's client", self.client.run(dial, broker.inlet(), stopped))
    }
}

/// Starts tasks that the service cannot do without, and tells when one has ended, by a panic too: a service
/// with no door, say, would look alive.
struct Watch(mpsc::UnboundedSender<&'static str>);

impl Watch {
    fn new() -> (Watch, mpsc::UnboundedReceiver<&'static str>) {
        let (tell, ended) = mpsc::unbounded_channel();
        (Watch(tell), ended)
    }

    fn spawn(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let end = TellEnd { what, tell: self.0.clone() };
        tokio::spawn(async move {
            let _end = end;
            task.await;
        })
    }
}

struct TellEnd {
    what: &'static str,
    tell: mpsc::UnboundedSender<&'static str>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        // After the end was asked for nobody listens.
        let _ = self.tell.send(self.what);
    }
}

/// Refuses to show figures to others than this machine without TLS and users.
fn fit_for_others(options: &ServeOptions, has_users: bool) -> Result<()> {
    let address = options.http;
    if address.ip().is_loopback() {
        return Ok(());
    }
    if options.http_tls == HttpTls::None {
        bail!(
            "--http-addr {address} 不是本机地址，须用 TLS：给出 --http-cert 和 --http-key，或 --http-self-made-cert / is not an address of this machine alone and needs TLS: give --http-cert and --http-key, or --http-self-made-cert NAME"
        );
    }
    if !has_users {
        bail!(
            "--http-addr {address} 不是本机地址，须先设立用户：banyan-aggregator user add 姓名 --role admin / is not an address of this machine alone and needs a user first: banyan-aggregator user add NAME --role admin"
        );
    }
    Ok(())
}

fn http_tls(dir: &Path, tls: &HttpTls) -> Result<Option<Arc<ServerConfig>>> {
    Ok(match tls {
        HttpTls::None => None,
        HttpTls::Files(certificate, key) => Some(tls_config(certificate, key)?),
        HttpTls::SelfMade(names) => {
            let (config, fingerprint) = self_made(dir, names)?;
            tracing::info!(fingerprint, "HTTP uses the centre's own certificate");
            Some(config)
        }
    })
}

/// The listening sockets of HTTP: the one asked for, and one for the command line if that speaks TLS.
struct Sockets {
    http: HttpListener,
    command: Option<HttpListener>,
}

impl Sockets {
    async fn bind(dir: &Path, options: &ServeOptions) -> Result<Sockets> {
        let tls = http_tls(dir, &options.http_tls)?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let command = match tls {
            Some(_) => Some(HttpListener::bind(any, None).await?),
            None => None,
        };
        Ok(Sockets { http: HttpListener::bind(options.http, tls).await?, command })
    }

    /// Serves on all of them until told to stop.
    async fn run(self, app: HttpApp, stopped: watch::Receiver<bool>) {
        let local = app.local;
        let tls = self.command.is_some();
        let routes =
            |listening| http::routes(&app.site, app.counted.clone(), &app.token, listening);
        let http = routes(Listening { tls, local, only_server: false });
        let http = self.http.run(http, stopped.clone());
        let Some(command) = self.command else { return http.await };
        let routes = routes(Listening { tls: false, local: true, only_server: true });
        tokio::join!(http, command.run(routes, stopped));
    }
}

/// What HTTP is served from.
struct HttpApp {
    site: Arc<Site>,
    counted: Counted,
    token: String,
    /// Whether only this machine reaches it.
    local: bool,
}

/// Serves until told to stop.
///
/// # Errors
/// If an address cannot be bound or may not be, the ledger not opened, or the broker fails.
pub async fn serve(dir: &Path, options: ServeOptions) -> Result<()> {
    serve_until(dir, options, stop_signal).await
}

/// As [`serve`]; `asked` is called once it is ready to be told.
async fn serve_until<F: Future<Output = ()>>(
    dir: &Path,
    options: ServeOptions,
    asked: impl FnOnce() -> F,
) -> Result<()> {
    fit_for_others(&options, Access::open(dir)?.has_users())?;
    if options.mqtt.addr.ip().is_unspecified() && options.public_mqtt.is_none() {
        bail!(
            "MQTT address {}: say with --public-mqtt-addr HOST:PORT where agents reach it\
             （请用 --public-mqtt-addr 指明终端所用的地址）",
            options.mqtt.addr
        );
    }
    let registry = Registry::new(Arc::new(Counters::default()));
    let (broker, incoming) = Broker::start(BrokerConfig::default(), registry.clone())?;
    let beside = options.broker.clone().map(Beside::new);
    let down = beside.as_ref().map_or_else(|| broker.downlink(), |b| b.ways(&broker, &registry));
    let lines = Some((incoming, down));
    // Until then another service may be running here, and what lies in `run/` may be its own.
    let (service, mut running) = Service::open(dir, system_clock(), lines).await?;
    std::fs::create_dir_all(run_dir(dir)).context("making the run directory")?;
    let token = make_token(dir)?;
    if let Some(mode) = open_to_others(dir) {
        tracing::warn!(
            dir = %dir.display(),
            mode = format!("{mode:o}"),
            "other accounts of this machine can enter the data directory, and read the ledger: chmod 700"
        );
    }
    let mut entrance = service.entrance();
    if options.mqtt.tls {
        let tls = DoorTls::new(service.identity(), options.names(), service.now())?;
        entrance.tls = Some(Arc::new(tls));
    }
    let tls = entrance.tls.clone();
    let config = door_config()?;
    let door =
        FrontDoor::bind(options.mqtt.addr, config, broker.uplink(), registry, entrance).await?;
    let sockets = Sockets::bind(dir, &options).await?;
    let command = sockets.command.as_ref().map(HttpListener::local_addr).transpose()?;
    let addresses = Addresses {
        mqtt: door.local_addr().to_string(),
        mqtt_tls: options.mqtt.tls,
        http: sockets.http.local_addr()?.to_string(),
        command: command.map(|address| address.to_string()),
    };
    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move { told(&mut stopped).await };
    let external = beside.as_ref().map(Beside::counters);
    let counted = Counted { door: door.counters(), external };
    let (watch, mut ended) = Watch::new();
    let beside = beside.map(|beside| beside.start(&broker, &service, stop.subscribe(), &watch));
    let door = watch.spawn("the front door", door.run(until(stopped.clone())));
    let app = HttpApp {
        site: Arc::new(Site::new(service.clone())),
        counted,
        token,
        local: options.http.ip().is_loopback(),
    };
    if app.local && !service.access().has_users() {
        tracing::warn!(
            "no user has been made: whoever can use this machine sees everything at the HTTP address"
        );
    }
    let pages = watch.spawn("the HTTP server", sockets.run(app, stopped));
    let kept = watch.spawn("the checkpoints", checkpoints(service.clone(), stop.subscribe()));
    let contests = log_contests(service.clone(), stop.subscribe());
    let contests = watch.spawn("the log of contested identities", contests);
    let ready = keep_ready(service.clone(), stop.subscribe());
    let ready = watch.spawn("the making ready of answers", ready);
    // Before the file that says "ready": whoever reads it may ask for the end at once.
    let asked_to_stop = asked();
    set_public(dir, options.public_mqtt.map(|public| public.to_string()))?;
    write_secret(&addresses_file(dir), &serde_json::to_vec(&addresses)?)?;
    tracing::info!(mqtt = addresses.mqtt, http = addresses.http, "serving");

    let fault = tokio::select! {
        () = asked_to_stop => None,
        () = renew(tls, &service) => None,
        fault = broker.fault() => Some(anyhow::Error::from(fault)),
        () = running.intake_ended() => {
            Some(anyhow::anyhow!("the intake has ended by a fault of its own; start the service again"))
        }
        Some(what) = ended.recv() => {
            Some(anyhow::anyhow!("{what} ended by a fault of its own; start the service again"))
        }
    };
    retire_addresses(dir)?;
    tracing::info!("stopping");
    stop.send_replace(true);
    let in_order = async {
        door.await.context("the front door ended abnormally")?;
        // A page being read may hold its connection open; it is not waited for for ever.
        if tokio::time::timeout(PAGES_GRACE, pages).await.is_err() {
            // Their tasks end with the process; what they ask of the store from now on is refused.
            tracing::debug!("HTTP connections are still open");
        }
        if let Some(beside) = beside {
            beside.await.context("the external broker's client ended abnormally")?;
        }
        broker.stop().await;
        kept.await.context("the checkpoints ended abnormally")?;
        ready.await.context("the making ready of answers ended abnormally")?;
        contests.await.context("the log of contested identities ended abnormally")?;
        drop(service);
        running.stop().await
    };
    let Some(fault) = fault else { return in_order.await };
    // A router that is stuck keeps our threads: the process has to end all the same, for its supervisor.
    match tokio::time::timeout(FAULT_GRACE, in_order).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "after the fault"),
        Err(_) => tracing::error!("after the fault not everything could be ended in order"),
    }
    Err(fault)
}

/// How long open pages are waited for.
const PAGES_GRACE: std::time::Duration = std::time::Duration::from_secs(3);
/// How long an end in order may take after a fault.
const FAULT_GRACE: std::time::Duration = std::time::Duration::from_secs(20);

/// Descriptors that are not the door's: the ledger, HTTP, a backup, and connections just being closed.
const OTHER_DESCRIPTORS: u64 = 1_536;

/// What the door allows, as far as the system has descriptors for it: otherwise the ledger would be the one to
/// find none.
fn door_config() -> Result<DoorConfig> {
    let mut config = DoorConfig::default();
    let most = crate::descriptors::raise().context("the limit of open files")?;
    let left = most.saturating_sub(OTHER_DESCRIPTORS).max(most / 4);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    if left < config.connections_max {
        tracing::warn!(
            open_files = most,
            connections = left,
            "the limit of open files allows fewer connections than the front door could hold: raise it (ulimit -n, LimitNOFILE)"
        );
        config.connections_max = left;
    }
    Ok(config)
}

/// Puts identities seen in two places from now on on the log of who did what: it outlives the service, as the list
/// of agents does not.
pub(crate) fn log_contests(
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> {
    let roll = service.entrance().roll;
    let mut contests = roll.contests();
    async move {
        loop {
            let agent = tokio::select! {
                () = told(&mut stop) => return,
                agent = contests.recv() => agent,
            };
            match agent {
                Ok(agent) => {
                    if let Some((at, contest)) = roll.contest_of(agent) {
                        service.access().note_contest(agent, at, &contest);
                    }
                }
                // So many at once that some are only in the list of agents and in the counters.
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "contested identities are not on the log");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

/// How often the server's certificate is looked at.
const RENEW_EVERY: std::time::Duration = std::time::Duration::from_secs(3600);

/// Renews the server's certificate in time, for ever.
async fn renew(tls: Option<Arc<DoorTls>>, service: &Service) {
    let Some(tls) = tls else { return std::future::pending().await };
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match tls.renew(service.now()) {
            Ok(true) => tracing::info!("the TLS server has a new certificate"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the TLS server's certificate was not renewed"),
        }
    }
}

/// Ready when the process is asked to stop. On Unix that is listened for from this call on, not from the first
/// wait.
fn stop_signal() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let asked = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::terminate()).ok(), signal(SignalKind::interrupt()).ok())
    };
    async move {
        #[cfg(unix)]
        if let (Some(mut terminate), Some(mut interrupt)) = asked {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            return;
        }
        // Without signals there is nothing to wait for but the end of the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use banyan_shared::catalogue::Lang;

    use super::*;
    use crate::client::Client;
    use crate::http::Request;
    use crate::init::{Sources, init};

    /// Free ports of this machine.
    fn options() -> ServeOptions {
        ServeOptions {
            mqtt: "127.0.0.1:0".parse().unwrap(),
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_tls: HttpTls::None,
            public_mqtt: None,
            mqtt_names: Vec::new(),
            broker: None,
        }
    }

    #[test]
    fn a_second_service_does_not_hide_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("centre");
        init(&home, &Sources { catalogue: None, tables: Vec::new() }, "test", Lang::En).unwrap();
        // As a run that was killed leaves them.
        let stale = Addresses {
            mqtt: "127.0.0.1:1".into(),
            mqtt_tls: false,
            http: "127.0.0.1:1".into(),
            command: None,
        };
        std::fs::create_dir_all(run_dir(&home)).unwrap();
        write_secret(&addresses_file(&home), &serde_json::to_vec(&stale).unwrap()).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let of_first = home.clone();
        let first = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let told = move || {
                ready.send(()).unwrap();
                async move { ended.await.unwrap_or(()) }
            };
            runtime.block_on(serve_until(&of_first, options(), told)).unwrap();
        });
        is_ready.recv().expect("the first has ended");
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(120);
        let addresses = loop {
            match Addresses::read(&home) {
                Some(found) => break found,
                None => assert!(std::time::Instant::now() < limit, "no addresses"),
            }
            std::thread::yield_now();
        };
        assert_ne!(addresses, stale);
        let token_before = token(&home).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let second = serve_until(&home, options(), std::future::pending);
        let error = format!("{:#}", runtime.block_on(second).unwrap_err());
        assert!(error.contains("another process"), "{error}");
        assert_eq!(Addresses::read(&home), Some(addresses));
        assert_eq!(token(&home), Some(token_before));
        let client = Client::connect(&home).unwrap();
        assert!(matches!(client, Client::Remote { .. }), "the command line reaches the first");
        client.json(&Request::Claims { lang: Lang::En }).unwrap();
        drop(end);
        first.join().unwrap();
        assert_eq!(Addresses::read(&home), None, "a clean end");
    }

    #[tokio::test]
    async fn whoever_ends_is_named_by_a_panic_too() {
        let (watch, mut ended) = Watch::new();
        let pending = watch.spawn("one that lives", std::future::pending());
        watch.spawn("one that panics", async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(ended.recv().await, Some("one that panics"));
        watch.spawn("one that returns", async {}).await.unwrap();
        assert_eq!(ended.recv().await, Some("one that returns"));
        assert!(ended.try_recv().is_err());
        pending.abort();
    }
}
