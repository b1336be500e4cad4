//! The accept loop: handshakes, limits of connections, and their end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::map_request;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use sbs_proto::Digest;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::limits;
use crate::tls::Live;

/// The other end of a connection whose certificate was checked in the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct AuthenticatedPeer {
    address: SocketAddr,
    certificate: Digest,
}

impl AuthenticatedPeer {
    /// Returns the address that the peer connected from.
    pub(crate) fn address(self) -> SocketAddr {
        self.address
    }

    /// Returns the SHA-256 digest of the peer's certificate.
    pub(crate) fn certificate(self) -> Digest {
        self.certificate
    }
}

/// Accepts connections until `stop`, then lets those that run end.
pub(crate) async fn serve(
    listener: TcpListener,
    live: Live,
    router: Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async { (place.await, listener.accept().await) } => accepted,
        };
        let (stream, address) = match accepted.1 {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (live, router) = (live.clone(), router.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let _place = accepted.0;
            let Some((stream, peer, chain)) = handshake(stream, address, &live).await else {
                return;
            };
            let asked = CancellationToken::new();
            let service = TowerToHyperService::new(note_request(router, asked.clone(), peer));
            let builder = builder();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = watcher.watch(connection) => if let Err(error) = ended {
                    tracing::debug!(%address, error, "connection ended");
                },
                () = nothing_asked(asked) => {
                    tracing::info!(%address, "connection closed: it asked nothing");
                }
                () = no_longer_trusted(live, chain, CHECK_AGAIN, || Clock::system().now()) => {
                    tracing::info!(%address, "connection closed: its certificate is not trusted any more");
                }
            }
        });
    }
    drop(listener);
    let ended = tokio::time::timeout(limits::SHUTDOWN_TIME, graceful.shutdown()).await;
    if ended.is_err() {
        tracing::warn!("some connections were cut");
    }
}

/// Adds what is known of the peer to its requests, and notes when the first one comes.
fn note_request(router: Router, asked: CancellationToken, peer: AuthenticatedPeer) -> Router {
    router.layer(Extension(peer)).layer(map_request(move |request: Request| {
        asked.cancel();
        std::future::ready(request)
    }))
}

/// Ends when no request has come in time. Until the first one has, hyper has no limit of its own:
/// it waits for the bytes that tell which version of HTTP the peer speaks.
async fn nothing_asked(asked: CancellationToken) {
    if tokio::time::timeout(limits::HEADER_TIME, asked.cancelled()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Ends when the certificate that a connection was opened with would be refused now: because it, or
/// one behind it, has ended, which is looked at again `every` so often, or because others are accepted.
async fn no_longer_trusted(
    live: Live,
    chain: Vec<CertificateDer<'static>>,
    every: Duration,
    now: impl Fn() -> OffsetDateTime,
) {
    let mut changes = live.changes();
    loop {
        let clients = changes.borrow_and_update().clients();
        if !clients.accept(&chain, now()) {
            return;
        }
        // Changes do not end: `live` is still here.
        let _either = tokio::time::timeout(every, changes.changed()).await;
    }
}

/// Makes the TLS handshake, with a time limit; a connection that fails it is dropped.
async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    live: &Live,
) -> Option<(ServerStream, AuthenticatedPeer, Vec<CertificateDer<'static>>)> {
    let _no_delay = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(live.server());
    let stream = match tokio::time::timeout(limits::HANDSHAKE_TIME, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "handshake refused");
            return None;
        }
        Err(_elapsed) => {
            tracing::info!(%address, "handshake took too long");
            return None;
        }
    };
    // The verifier lets nobody through without a certificate; a peer without one cannot be here.
    let chain = stream.get_ref().1.peer_certificates()?;
    let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
    let certificate = sbs_crypto::digest(chain.first()?);
    Some((stream, AuthenticatedPeer { address, certificate }, chain))
}

/// How often the certificates of open connections are held against the clock.
const CHECK_AGAIN: Duration = Duration::from_mins(1);

type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_buf_size(limits::HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(limits::HEADER_TIME))
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(u32::try_from(limits::HEADER_BYTES).unwrap_or(u32::MAX));
    builder
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use sbs_crypto::pki::{CertificateAuthority, describe};
    use time::macros::datetime;

    use super::*;
    use crate::tls::{Clients, Configuration, Pair, certificates};

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    /// Returns what a server accepts with this authority, and a client's certificate under it.
    fn live(authority: &CertificateAuthority) -> Live {
        let server = authority.issue_server("localhost", NOW).unwrap();
        let pair = Pair { certificate: server.certificate_pem, key: server.key_pem };
        let authorities = certificates(authority.certificate_pem(), "CLIENT_CA").unwrap();
        let clients = Clients::new(&authorities, &[], None).unwrap();
        Live::new(Configuration::new(&pair, &clients).unwrap())
    }

    #[tokio::test]
    async fn t4_a_certificate_that_ends_does_not_keep_its_connection() {
        let authority = CertificateAuthority::create(NOW).unwrap();
        let issued = authority.issue_client(NOW).unwrap();
        let chain = certificates(&issued.certificate_pem, "the client").unwrap();
        let end = describe(&issued.certificate_pem).unwrap().not_after;
        // Each time that the clock is looked at, an hour has gone.
        let looked = Cell::new(0);
        let now = || {
            looked.set(looked.get() + 1);
            end + time::Duration::hours(looked.get() - 3)
        };
        no_longer_trusted(live(&authority), chain, Duration::from_millis(1), now).await;
        assert_eq!(looked.get(), 4, "it was good until its last second");
    }

    #[tokio::test]
    async fn a_certificate_that_is_no_longer_accepted_does_not_wait_for_the_clock() {
        let [authority, other] = [0, 1].map(|_| CertificateAuthority::create(NOW).unwrap());
        let issued = authority.issue_client(NOW).unwrap();
        let chain = certificates(&issued.certificate_pem, "the client").unwrap();
        let (shown, later) = (live(&authority), live(&other).changes().borrow().clone());
        let looked = Cell::new(0);
        let now = || {
            looked.set(looked.get() + 1);
            NOW
        };
        let changed = async {
            while looked.get() == 0 {
                tokio::task::yield_now().await;
            }
            shown.set(later);
        };
        let never = Duration::from_hours(1_000_000);
        tokio::join!(no_longer_trusted(shown.clone(), chain, never, now), changed);
        assert_eq!(looked.get(), 2);
    }
}
