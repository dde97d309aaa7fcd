//! A bad network: connections that break, or stand still, when it is told to.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Default)]
struct Weather {
    /// Connections made before this were cut.
    cuts: u64,
    frozen: bool,
}

/// A way to a server that can be cut.
pub struct Network {
    /// Where to connect to.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    _accepting: AbortOnDropHandle<()>,
}

impl Network {
    /// A way to the server at that address, which need not be there.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (weather, forecast) = watch::channel(Weather::default());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, server, forecast.clone()));
            }
        });
        Self { address, weather, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Lets nothing through, or all that has come up to now.
    pub fn freeze(&self, frozen: bool) {
        self.weather.send_modify(|weather| weather.frozen = frozen);
    }
}

async fn connect(near: TcpStream, server: SocketAddr, weather: watch::Receiver<Weather>) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    // Whichever way ends first takes the other with it.
    tokio::select! {
        () = pump(near_in, far_out, weather.clone()) => {}
        () = pump(far_in, near_out, weather) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let cuts = weather.borrow().cuts;
    let mut bytes = vec![0; 1 << 14];
    loop {
        while weather.borrow_and_update().frozen {
            if weather.changed().await.is_err() {
                return;
            }
        }
        if weather.borrow().cuts != cuts {
            return;
        }
        let step = async {
            let length = from.read(&mut bytes).await.ok().filter(|length| *length > 0)?;
            to.write_all(&bytes[..length]).await.ok()
        };
        tokio::select! {
            biased;
            // What was read and not written is lost with the connection, or not at all:
            // a change of the weather alone must not end a step.
            step = step => if step.is_none() { return },
            () = cut(weather.clone(), cuts) => return,
        }
    }
}

async fn cut(mut weather: watch::Receiver<Weather>, cuts: u64) {
    // The sender goes with the test.
    let _ = weather.wait_for(|weather| weather.cuts != cuts).await;
}
