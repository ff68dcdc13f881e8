//! `talewire ready`: whether the server with this configuration can serve, asked of its admin listener. The configuration in, the
//! answer out as an exit code, for what watches processes where there is no `curl`, such as a container's health check.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::config::Config;

/// How long a connection, and each part of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer of ours is far shorter.
const ANSWER_BYTES_MAX: u64 = 16_384;

/// # Errors
/// If the server does not answer, or says why it cannot serve.
pub(crate) fn ask(config: &Config) -> anyhow::Result<()> {
    let address = config.http.admin_listen;
    if address.port() == 0 {
        bail!("http.admin_listen has port 0: nobody knows which one the server chose");
    }
    let answer = answer_at(reachable(address)).with_context(|| format!("{address} does not answer"))?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("not ready: {}", reason(&answer));
    }
    // It may be degraded.
    println!("{}", reason(&answer));
    Ok(())
}

/// Who listens on every address is asked on the machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

fn answer_at(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The body of an answer, or what there is of it.
fn reason(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body).trim()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is made of a server that gives this answer.
    fn asked(answer: &'static str) -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut config = Config::default();
        config.http.admin_listen = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("somebody asks");
            let mut request = [0; 1_024];
            let n = socket.read(&mut request).expect("a request");
            socket.write_all(answer.as_bytes()).expect("an answer");
            request[..n].starts_with(b"GET /ready HTTP/1.1\r\n")
        });
        let told = ask(&config);
        assert!(server.join().expect("the server ends"));
        told
    }

    #[test]
    fn the_servers_word_is_passed_on() {
        asked("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n").expect("ready");
        let told = asked("HTTP/1.1 503 Service Unavailable\r\n\r\nthe store does not answer: full\n");
        assert_eq!(told.expect_err("not ready").to_string(), "not ready: the store does not answer: full");
        assert!(asked("").is_err());
    }

    #[test]
    fn nobody_there_is_not_ready() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut config = Config::default();
        config.http.admin_listen = free;
        let told = ask(&config).expect_err("nobody listens");
        assert!(told.to_string().contains("does not answer"), "{told}");
        config.http.admin_listen.set_port(0);
        assert!(ask(&config).is_err());
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(reachable(parse("0.0.0.0:8001")), parse("127.0.0.1:8001"));
        assert_eq!(reachable(parse("[::]:8001")), parse("[::1]:8001"));
        assert_eq!(reachable(parse("10.0.0.1:8001")), parse("10.0.0.1:8001"));
    }
}
