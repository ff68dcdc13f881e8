//! Starting and stopping: listeners, one thread per shard, the admin listener, and the way down.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::accept::{self, Door};
use crate::drain;
use crate::inbox::{Inboxes, Message};
use crate::node::Node;
use crate::reactor::Reactor;
use crate::routes;

/// The settings that say where is listened.
const LISTEN: &str = "http.listen";
const ADMIN_LISTEN: &str = "http.admin_listen";

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on: choose another, or stop who uses it.
    #[error("cannot listen on {address} ({setting}): {error}")]
    Listen {
        /// The setting that says so.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A running server.
pub struct Server {
    node: Arc<Node>,
    address: SocketAddr,
    admin_address: SocketAddr,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the admin listener alone, on a thread of its own: for a process in which nobody connects.
    ///
    /// # Errors
    /// [`ServerError`] when the address is taken or the thread cannot be started.
    pub fn start_admin(node: Arc<Node>) -> Result<Self, ServerError> {
        let stop = CancellationToken::new();
        let (admin, address) = listen_for_operators(&node)?;
        let (inboxes, mut inbound) = Inboxes::new(1, node.settings.inbox_max);
        node.open_inboxes(&inboxes);
        let inbox = (inboxes.of(0).clone(), inbound.remove(0));
        let thread = start_thread(&node, 0, inbox, vec![admin], &stop)?;
        Ok(Self { node, address, admin_address: address, stop, threads: vec![thread] })
    }

    /// Opens the listeners and starts the threads: one for each shard of the node's hub.
    ///
    /// # Errors
    /// [`ServerError`] when an address is taken or a thread cannot be started.
    pub fn start(node: Arc<Node>) -> Result<Self, ServerError> {
        let stop = CancellationToken::new();
        let settings = &node.settings;
        let wrong = |error| ServerError::Listen { setting: LISTEN, address: settings.listen, error };
        refuse_taken(settings.listen).map_err(wrong)?;
        let first = listen(settings.listen, settings.backlog).map_err(wrong)?;
        // With port 0 the kernel has chosen one now; the other shards listen on the same.
        let address = first.local_addr().map_err(wrong)?;
        let mut listeners = vec![first];
        while listeners.len() < node.hub.shards().len() {
            listeners.push(listen(address, settings.backlog).map_err(wrong)?);
        }
        let (admin, admin_address) = listen_for_operators(&node)?;
        let mut admin = Some(admin);
        let mut threads = Vec::new();
        let (inboxes, inbound) = Inboxes::new(listeners.len(), settings.inbox_max);
        node.open_inboxes(&inboxes);
        for (index, (listener, inbound)) in listeners.into_iter().zip(inbound).enumerate() {
            let inbox = (inboxes.of(index).clone(), inbound);
            let mut doors = vec![(listener, Door { router: routes::public(node.clone()), transports: true })];
            // Operators ask rarely: the first shard answers them beside its other work.
            doors.extend(admin.take());
            threads.push(start_thread(&node, index, inbox, doors, &stop)?);
        }
        Ok(Self { node, address, admin_address, stop, threads })
    }

    /// Where people and programs connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health stand.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Says that the server goes down, to load balancers by a red `/ready` and to other nodes; a while later takes nobody new, tells
    /// everybody to come again elsewhere or later, little by little, and waits until what waits is sent. All of it within the set time.
    pub async fn stop(self) {
        self.node.stopping.store(true, Ordering::Relaxed);
        let node = self.node.clone();
        tokio::spawn(async move { node.beat().await });
        tokio::time::sleep(Duration::from_millis(self.node.settings.drain_wait_ms)).await;
        self.node.closing.store(true, Ordering::Relaxed);
        self.stop.cancel();
        let joined = tokio::task::spawn_blocking(move || self.threads.into_iter().all(|thread| thread.join().is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a shard's thread had panicked");
        }
    }
}

/// Sharing an address among our shards would also share it with another server of ours, and the kernel would deal
/// connections out to both: whoever holds the address already is found by a socket that does not share.
fn refuse_taken(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    socket_for(address)?.bind(&address.into())
}

/// A listening socket that shares its address with those of the other shards.
fn listen(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = socket_for(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn socket_for(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// The listener for operators, with its address.
fn listen_for_operators(node: &Arc<Node>) -> Result<((std::net::TcpListener, Door), SocketAddr), ServerError> {
    let address = node.settings.admin_listen;
    let wrong = |error| ServerError::Listen { setting: ADMIN_LISTEN, address, error };
    refuse_taken(address).map_err(wrong)?;
    let listener = listen(address, node.settings.backlog).map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    Ok(((listener, Door { router: routes::admin(node.clone()), transports: false }), address))
}

fn start_thread(
    node: &Arc<Node>,
    index: usize,
    inbox: Inbox,
    doors: Vec<(std::net::TcpListener, Door)>,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>, ServerError> {
    let (node, stop) = (node.clone(), stop.clone());
    std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || run_shard(node, index, inbox, doors, stop))
        .map_err(ServerError::Thread)
}

type Inbox = (mpsc::Sender<Message>, mpsc::Receiver<Message>);

fn run_shard(
    node: Arc<Node>,
    index: usize,
    (inbox, inbound): Inbox,
    doors: Vec<(std::net::TcpListener, Door)>,
    stop: CancellationToken,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = runtime.expect("a runtime needs an epoll descriptor and a timer, which start has room for");
    runtime.block_on(async move {
        let rules = node.follow_rules();
        let reactor = Rc::new(Reactor::new(node.clone(), index, inbox));
        let accepting = doors.into_iter().map(|(listener, door)| {
            let listener = TcpListener::from_std(listener).expect("the listener is open and does not block");
            tokio::task::spawn_local(accept::run(reactor.clone(), listener, door))
        });
        let accepting = accepting.collect();
        let mut work = JoinSet::new();
        work.spawn_local(reactor.clone().pump());
        work.spawn_local(reactor.clone().take_inbound(inbound));
        work.spawn_local(reactor.clone().tick());
        work.spawn_local(reactor.clone().follow_rules(rules));
        tokio::select! {
            () = stop.cancelled() => {}
            // A thread that delivers nothing any more must not look alive: readers come again, here or elsewhere.
            Some(Err(error)) = work.join_next() => {
                tracing::error!(%error, "the work of a thread has panicked: the process ends, to be started again");
                std::process::exit(70);
            }
        }
        drain::drain(&reactor, accepting).await;
    });
}
