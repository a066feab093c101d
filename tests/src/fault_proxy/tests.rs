//! Each mode before a listener that notes what arrives and answers 200 to what arrived whole.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::wire::Wire;
use super::{Fault, FaultProxy, Mode};
use crate::process::wait_until;

const INSERT: &str = "/?query=INSERT+INTO+%60audit_events%60%28a%29+FORMAT+Native&x=1";

/// What arrived: targets and bodies, and whether whole.
type Arrived = Arc<Mutex<Vec<(String, usize, bool)>>>;

/// A ClickHouse that stores nothing.
async fn listen(serving: &mut JoinSet<()>) -> (String, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let arrived = Arrived::default();
    let noted = Arc::clone(&arrived);
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(note(stream, Arc::clone(&noted)));
        }
    });
    (url, arrived)
}

async fn note(stream: TcpStream, noted: Arrived) {
    let mut wire = Wire::new(stream).unwrap();
    while let Ok(Some(head)) = wire.reader.head().await {
        let mut body = head.request_body();
        let (mut bytes, mut whole) = (0, true);
        loop {
            match wire.reader.piece(&mut body).await {
                Ok(Some(piece)) => bytes += piece.len(),
                Ok(None) => break,
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        let target = head.target().to_owned();
        noted.lock().unwrap().push((target, bytes, whole));
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nOk.\r\n0\r\n\r\n";
        if !whole || wire.write(answer).await.is_err() {
            return;
        }
    }
}

/// A proxy, what is behind it, and a client.
struct Scene {
    proxy: FaultProxy,
    arrived: Arrived,
    client: reqwest::Client,
    _serving: JoinSet<()>,
}

impl Scene {
    async fn new() -> Self {
        let mut serving = JoinSet::new();
        let (url, arrived) = listen(&mut serving).await;
        Self {
            proxy: FaultProxy::start(&url).unwrap(),
            arrived,
            client: reqwest::Client::new(),
            _serving: serving,
        }
    }

    /// The status and text of the answer; `None` if there is none.
    async fn post(&self, target: &str) -> Option<(u16, String)> {
        let url = format!("{}{target}", self.proxy.url());
        let answer = self.client.post(url).body("0123456789").send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    }

    fn arrivals(&self) -> Vec<(usize, bool)> {
        let arrived = self.arrived.lock().unwrap();
        arrived
            .iter()
            .map(|(_, bytes, whole)| (*bytes, *whole))
            .collect()
    }
}

#[tokio::test]
async fn what_passes_is_as_it_was_on_one_connection() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        let answer = scene.post(INSERT).await;
        assert_eq!(answer, Some((200, "Ok.".to_owned())));
    }
    assert_eq!(scene.arrivals(), [(10, true); 3]);
    let arrived = scene.arrived.lock().unwrap();
    assert!(arrived.iter().all(|(target, ..)| target == INSERT));
    assert_eq!(scene.proxy.did().passed, 3);
}

#[tokio::test]
async fn chunks_pass_and_are_cut_half_way() {
    let scene = Scene::new().await;
    let request = format!(
        "POST {INSERT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nabcd\r\n1a;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n"
    );
    let address = scene.proxy.url().replace("http://", "");
    for (mode, answered) in [(Mode::Pass, true), (Mode::CutBody, false)] {
        scene.proxy.set(Fault::of(mode));
        let mut client = Wire::new(TcpStream::connect(&address).await.unwrap()).unwrap();
        client.write(request.as_bytes()).await.unwrap();
        let head = client.reader.head().await;
        assert_eq!(matches!(head, Ok(Some(_))), answered, "{head:?}");
    }
    wait_until("both to arrive", async || {
        Ok((scene.arrivals().len() == 2).then_some(()))
    })
    .await
    .unwrap();
    let [(all, true), (some, false)] = scene.arrivals()[..] else {
        panic!("{:?}", scene.arrivals());
    };
    // The size of a chunk in the middle of which it is cut is known, its end never comes.
    assert!(all == 50 && some < all, "{some} of {all}");
    assert_eq!(scene.proxy.did().cut_bodies, 1);
}

#[tokio::test]
async fn a_false_answer_is_not_forwarded() {
    let scene = Scene::new().await;
    scene.proxy.set(Fault::of(Mode::FalseOk).times(1));
    assert_eq!(scene.post(INSERT).await, Some((200, String::new())));
    scene.proxy.set(Fault::of(Mode::Answer500).times(1));
    assert_eq!(scene.post(INSERT).await.unwrap().0, 500);
    assert_eq!(scene.arrivals(), []);
    assert_eq!(scene.post(INSERT).await.unwrap().0, 200);
    assert_eq!(scene.arrivals().len(), 1);
    let did = scene.proxy.did();
    assert_eq!((did.false_oks, did.answered_500, did.passed), (1, 1, 1));
    assert_eq!(scene.proxy.struck(), 2);
}

#[tokio::test]
async fn an_answer_is_lost_after_it_was_given() {
    let scene = Scene::new().await;
    scene.proxy.set(Fault::of(Mode::LoseAnswer));
    assert_eq!(scene.post(INSERT).await, None);
    assert_eq!(scene.arrivals(), [(10, true)]);
    assert_eq!(scene.proxy.did().lost_answers, 1);
}

#[tokio::test]
async fn what_is_doubled_arrives_twice() {
    let scene = Scene::new().await;
    scene.proxy.set(Fault::of(Mode::Twice));
    assert_eq!(scene.post(INSERT).await.unwrap().0, 200);
    assert_eq!(scene.arrivals(), [(10, true); 2]);
    assert_eq!(scene.proxy.did().doubled, 1);
}

#[tokio::test]
async fn what_is_late_or_held_arrives_when_the_client_is_gone() {
    let scene = Scene::new().await;
    scene.proxy.set(Fault::of(Mode::Hold));
    let url = format!("{}{INSERT}", scene.proxy.url());
    let impatient = scene.client.post(&url).timeout(Duration::from_millis(50));
    assert!(impatient.send().await.is_err());
    wait_until("it to be held", async || {
        Ok((scene.proxy.held() == 1).then_some(()))
    })
    .await
    .unwrap();
    scene
        .proxy
        .set(Fault::of(Mode::Delay(Duration::from_millis(200))));
    let impatient = scene.client.post(&url).timeout(Duration::from_millis(50));
    assert!(impatient.send().await.is_err());
    assert_eq!(scene.arrivals().len(), 0);
    scene.proxy.release();
    wait_until("both to be done", async || {
        let did = scene.proxy.did();
        Ok((did.released == 1 && did.delayed == 1).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(scene.arrivals(), [(0, true); 2]);
    assert_eq!((scene.proxy.held(), scene.proxy.did().passed), (0, 0));
    wait_until("nothing to be under way", async || {
        Ok((scene.proxy.under_way() == 0).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn only_what_is_meant_is_harmed() {
    let scene = Scene::new().await;
    scene.proxy.set(Fault::of(Mode::Answer500));
    for other in [
        "/?query=SELECT+1",
        "/?query=INSERT+INTO+audit_watermarks+FORMAT+Native",
        "/?query=INSERT+INTO+audit_events_backup+FORMAT+Native",
    ] {
        assert_eq!(scene.post(other).await.unwrap().0, 200, "{other}");
    }
    assert_eq!(scene.post(INSERT).await.unwrap().0, 500);
    let watermarks = Fault::of(Mode::Answer500).on(|r| r.inserts_into(&["audit_watermarks"]));
    scene.proxy.set(watermarks);
    assert_eq!(scene.post(INSERT).await.unwrap().0, 200);
    scene.proxy.set(Fault::of(Mode::Answer500).on_all());
    assert_eq!(scene.post("/?query=SELECT+1").await.unwrap().0, 500);
}

#[tokio::test]
async fn a_server_that_is_away_is_away() {
    let scene = Scene::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    scene.proxy.forward_to(&url);
    assert_eq!(scene.post(INSERT).await, None);
    assert_eq!(scene.proxy.did().passed, 0);
}
