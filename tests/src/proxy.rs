use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

/// A TCP proxy that cuts connections after some bytes of what the server sends.
#[derive(Debug)]
pub struct CuttingProxy {
    cuts: Arc<AtomicUsize>,
    port: u16,
}

impl CuttingProxy {
    /// Starts a proxy of the server at `port`: of the connections that carry more than `after`
    /// bytes, the first `cuts` ones are cut there.
    pub fn start(port: u16, after: u64, cuts: usize) -> Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into(), port, after, cuts)
    }

    /// Starts one at an address of its own that cuts nothing.
    pub fn forward(address: SocketAddr, port: u16) -> Result<Self> {
        Self::start_at(address, port, u64::MAX, 0)
    }

    fn start_at(address: SocketAddr, port: u16, after: u64, cuts: usize) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let proxy =
            Self { cuts: Arc::new(AtomicUsize::new(0)), port: listener.local_addr()?.port() };
        let made = Arc::clone(&proxy.cuts);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let made = Arc::clone(&made);
                thread::spawn(move || {
                    // Either end may go away when it likes.
                    let _ended = carry(&client, ([127, 0, 0, 1], port).into(), after, cuts, &made);
                });
            }
        });
        Ok(proxy)
    }

    /// Returns the port of the proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns how many connections were cut so far.
    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn carry(
    mut client: &TcpStream,
    server: SocketAddr,
    after: u64,
    cuts: usize,
    made: &AtomicUsize,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ended = io::copy(&mut from, &mut to);
        let _closed = to.shutdown(Shutdown::Write);
    });
    io::copy(&mut (&server).take(after), &mut client)?;
    let mut next = [0];
    if (&server).read(&mut next)? == 0 {
        return client.shutdown(Shutdown::Both);
    }
    let count = |made: usize| (made < cuts).then_some(made + 1);
    if made.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).is_ok() {
        server.shutdown(Shutdown::Both)?;
        return client.shutdown(Shutdown::Both);
    }
    client.write_all(&next)?;
    io::copy(&mut &server, &mut client)?;
    client.shutdown(Shutdown::Both)
}
