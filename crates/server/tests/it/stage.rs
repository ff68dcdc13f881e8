//! Starts a server in the test's own process, and speaks the native protocol to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use talewire_auth::{Auth, AuthSettings, Hosts, Logins, OriginRule, Secret, Tokens};
use talewire_broker::{Broker, BrokerSettings, NodeId};
use talewire_hub::{Hub, HubSettings};
use talewire_proto::namespace::Rule;
use talewire_proto::session::Anonymous;
use talewire_proto::{Kind, Limits, Namespace, Namespaces};
use talewire_server::{About, Node, NodeParts, ReloadRequest, Rules, Server, ServerError, ServerSettings};
use talewire_store::{Store, StoreSettings};
use talewire_story::{Stories, StoryLimits};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No answer within this time is a failure, never a wait that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) node: Arc<Node>,
    store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    server: Option<Server>,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) struct Settings {
    pub(crate) http: ServerSettings,
    pub(crate) limits: Limits,
    pub(crate) hub: HubSettings,
    pub(crate) anonymous: Anonymous,
    pub(crate) namespaces: Namespaces,
    pub(crate) free_bytes_min: u64,
    pub(crate) reloads: Option<tokio::sync::mpsc::Sender<ReloadRequest>>,
    pub(crate) orders_age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let http = ServerSettings {
            listen: any,
            admin_listen: any,
            shards: 2,
            drain_ms: 500,
            close_ms: 500,
            api_key: Some(Secret::new("the-key")),
            ..ServerSettings::default()
        };
        Self {
            http,
            limits: Limits::default(),
            hub: HubSettings::default(),
            anonymous: Anonymous::Insecure,
            namespaces: namespaces(),
            free_bytes_min: 0,
            reloads: None,
            orders_age: Duration::from_secs(3_600),
        }
    }
}

/// Rules that allow everything to everybody.
pub(crate) fn open(kind: Kind) -> Namespace {
    Namespace {
        kind,
        presence: true,
        join_leave: true,
        subscribe: Rule::Anyone,
        publish: Rule::Anyone,
        ..Namespace::default()
    }
}

fn namespaces() -> Namespaces {
    let club = Namespace {
        publish: Rule::Subscribers,
        presence: true,
        join_leave: true,
        subscribe: Rule::Authenticated,
        ..Namespace::default()
    };
    let sealed = Namespace { subscribe: Rule::Token, ..club.clone() };
    let shred = Namespace { erasable: true, ..open(Kind::Durable) };
    let kinds = [("chat", Kind::History), ("log", Kind::Durable), ("cursor", Kind::Signal)];
    let kinds = kinds.map(|(name, kind)| (name, open(kind)));
    let all = kinds.into_iter().chain([("club", club), ("sealed", sealed), ("shred", shred)]);
    Namespaces::new(all.map(|(name, rules)| (name.to_owned(), rules)))
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::try_with(settings).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn try_with(settings: Settings) -> Result<Self, ServerError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_owned();
        let free_bytes_min = settings.free_bytes_min;
        let store = StoreSettings { path, free_bytes_min, ..StoreSettings::default() };
        let store = Store::open(&store).await.expect("a store");
        let id = NodeId::new();
        let broker = Broker::open(&BrokerSettings::default(), &id).await.expect("it needs nothing");
        let mut stage = Self::on(settings, id, store, broker, "node-a").await?;
        stage._folder = Some(folder);
        Ok(stage)
    }

    /// Another node over the same broker and the same store.
    pub(crate) async fn beside(&self, settings: Settings) -> Self {
        let id = NodeId::new();
        let broker = self.node.broker.beside(&id);
        let stage = Self::on(settings, id, self.store.clone(), broker, "node-b").await;
        stage.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn on(settings: Settings, id: NodeId, store: Store, broker: Broker, name: &str) -> Result<Self, ServerError> {
        let work = Hub::assemble(settings.hub, store.clone(), broker.clone(), settings.http.shards);
        let hub = work.hub.clone();
        tokio::spawn(work.run());
        let parts = NodeParts {
            id,
            name: name.into(),
            store_name: "stage".into(),
            beat_ms: 1_000,
            orders_age: settings.orders_age,
            agreed: Default::default(),
            traces: None,
            settings: settings.http,
            rules: Rules::new(settings.namespaces, settings.limits).expect("schemas that can be used"),
            reloads: settings.reloads,
            anonymous: settings.anonymous,
            auth: Auth {
                tokens: Tokens::new(AuthSettings::default()).expect("settings"),
                logins: Logins::new([7; 32]),
            },
            cursors: talewire_auth::Seal::new([9; 32]),
            origins: OriginRule::new(&[], Hosts::Any).expect("no origins"),
            stories: Stories::new(store.clone(), broker, StoryLimits::default()),
            hub,
            about: About { provider: "demo".into(), label: "demo storyteller, no AI model".into() },
            agents: Arc::default(),
        };
        let node = Arc::new(Node::new(parts));
        node.beat().await;
        tokio::spawn(node.clone().attend());
        node.learn_logouts().await.expect("a store");
        tokio::spawn(node.clone().follow_logouts(Duration::from_millis(100)));
        node.join_orders().await.expect("a store");
        tokio::spawn(node.clone().follow_orders(Duration::from_millis(100)));
        let server = Server::start(node.clone())?;
        let (address, admin) = (server.address(), server.admin_address());
        Ok(Self { node, store, address, admin, server: Some(server), _folder: None })
    }

    pub(crate) async fn stop(&mut self) {
        self.take_server().stop().await;
    }

    /// The server, to be stopped by the test.
    pub(crate) fn take_server(&mut self) -> Server {
        self.server.take().expect("it runs")
    }

    /// A connection that has connected without a token.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.open(&[]).await.expect("an upgrade");
        client.send(json!({"id": 1, "connect": {}})).await;
        let reply = client.next().await;
        assert!(reply["connect"]["client"].is_string(), "{reply}");
        client
    }

    /// Opens a WebSocket with these headers; the status if it is refused.
    pub(crate) async fn open(&self, headers: &[(&'static str, String)]) -> Result<Client, u16> {
        let mut request =
            format!("ws://{}/connection/websocket", self.address).into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(Client { socket, waiting: Default::default() }),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Node) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !condition(&self.node) {
            assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
            tokio::task::yield_now().await;
        }
    }

    /// One number from the metrics page, of all its labels together.
    pub(crate) fn metric(node: &Node, name: &str) -> u64 {
        let text = node.metrics.text();
        let mut lines = text.lines().filter(|line| line.split([' ', '{']).next() == Some(name)).peekable();
        assert!(lines.peek().is_some(), "no metric {name} in\n{text}");
        let number = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
        lines.map(|line| number(line).expect("a number")).sum()
    }

    /// A guest's login for one tab: who it is, and the token.
    pub(crate) async fn guest(&self, name: &str) -> (String, String) {
        let body = Some(json!({"name": name, "tab": true}));
        let login = crate::http::request(self.address, "POST /app/login", &[], body).await.body;
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        (text(&login["user"]["id"]), text(&login["token"]))
    }

    /// A connection that has connected with a token, and its id.
    pub(crate) async fn client_of(&self, token: &str) -> (Client, String) {
        let mut client = self.open(&[]).await.expect("an upgrade");
        let reply = client.call(json!({"id": 1, "connect": {"token": token}})).await;
        let id = reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        (client, id)
    }
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    waiting: std::collections::VecDeque<Value>,
}

impl Client {
    pub(crate) async fn send(&mut self, command: Value) {
        self.send_text(command.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.expect("an open socket");
    }

    /// The next message, answering no pings.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            if let Some(value) = self.waiting.pop_front() {
                return value;
            }
            let message = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("a message in time");
            match message.expect("an open socket").expect("a good frame") {
                Message::Text(text) => {
                    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
                    self.waiting.extend(lines);
                }
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The reply to one command, skipping pushes.
    pub(crate) async fn call(&mut self, command: Value) -> Value {
        let id = command["id"].clone();
        self.send(command).await;
        loop {
            let message = self.next().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The code and reason of the close frame that must come.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            let message = tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("an end in time");
            if let Some(Ok(Message::Close(Some(frame)))) = message {
                return (frame.code.into(), frame.reason.to_string());
            }
            assert!(matches!(message, Some(Ok(_))), "an end without a close frame: {message:?}");
        }
    }

    pub(crate) fn drop_hard(self) {
        if let MaybeTlsStream::Plain(socket) = self.socket.get_ref() {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}
