//! Several connections over one byte stream, such as standard input and output of a program on another machine.
//!
//! Each connection is a *lane*. Whoever uses it has one end of a pair of sockets; what he writes travels in frames
//! `lane u32 | kind u8 | zeros u24 | length u32 | bytes`, and is written to a pair at the other end. Only the end that began
//! the tunnel opens lanes.
//!
//! **Who may wait for whom.** A thread for each lane reads what its user writes; it waits for the user, for credit, and for the
//! stream. Another one writes what has arrived for the lane to its user, and waits for him alone. The thread that reads the
//! stream waits for the stream alone: a lane has a window, no more is ever on its way than its queue holds, and so a user
//! who does not read holds up nobody else. Credit for what a user has taken is sent by the lane's own threads.
//!
//! An end that hears nothing for a while, not even a sign of life, is alone, and ends.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 12;
/// The most bytes of one frame.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// What may be on its way to a user who has not taken it, for each lane.
const WINDOW_BYTES: usize = 4 << 20;
/// A user has to have taken this much before its sender hears of it.
const CREDIT_BYTES: usize = WINDOW_BYTES / 4;
/// Lanes that are open at a time: the connections of a session, its control connections, and those that end.
const LANES_MAX: usize = 256;
/// How often an end says that it is there.
const SIGN_EVERY: Duration = Duration::from_secs(5);
/// An end that hears nothing for so long is alone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const STACK_BYTES: usize = 128 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    /// A new lane.
    Open = 0,
    /// Bytes of a lane.
    Data = 1,
    /// No more bytes of a lane from this end.
    End = 2,
    /// So many bytes were taken: a u32.
    Credit = 3,
    /// A sign of life.
    Sign = 4,
    /// The user of a lane is gone: nothing more of it is of use.
    Reset = 5,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        [Self::Open, Self::Data, Self::End, Self::Credit, Self::Sign, Self::Reset]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// Takes the lanes that the other end opens.
pub type TakeLane = Box<dyn Fn(Socket) + Send + Sync>;

/// What a lane's thread does with it.
type Work = fn(&Tunnel, u32, &Socket) -> io::Result<()>;

/// One end of it.
pub struct Tunnel {
    /// `None` when it is over: the stream's other end learns by its end.
    output: Mutex<Option<Box<dyn Write + Send>>>,
    state: Mutex<State>,
    /// All is over.
    ended: Condvar,
    /// `None` at the end that opens lanes.
    take_lane: Option<TakeLane>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    lanes: HashMap<u32, Lane>,
    next: u32,
    heard: Option<Instant>,
    end: Option<End>,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The stream ended.
    Closed,
    /// Nothing was heard for too long.
    Silence,
    /// The other end broke the rules.
    Broken,
    /// This end did it.
    HungUp,
}

/// A lane, seen from the stream.
struct Lane {
    socket: Arc<Socket>,
    /// What its user may still send.
    credit: usize,
    /// What has come for him.
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// No more will come.
    is_complete: bool,
    /// The user at the other end is gone: what still comes is passed over.
    is_reset: bool,
    /// Credit has come, or bytes have, or it is over.
    news: Arc<Condvar>,
    /// Threads that work for it.
    workers: u8,
}

impl Tunnel {
    /// An end over these two directions of a stream. The one that takes lanes opens none.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn over(
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
        take_lane: Option<TakeLane>,
    ) -> io::Result<Arc<Self>> {
        // The end that opens lanes may wait for a login first: it listens for silence from the first sign on.
        let heard = take_lane.is_some().then(Instant::now);
        let state = State { heard, ..State::default() };
        let tunnel = Arc::new(Self {
            output: Mutex::new(Some(Box::new(output))),
            state: Mutex::new(state),
            ended: Condvar::new(),
            take_lane,
            is_over: AtomicBool::new(false),
        });
        let (reading, living) = (Arc::clone(&tunnel), Arc::clone(&tunnel));
        let named = |name: &str| Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        named("tunnel").spawn(move || {
            let end = reading.read_all(input);
            reading.finish(end);
        })?;
        named("tunnel sign").spawn(move || living.live())?;
        Ok(tunnel)
    }

    /// Opens a lane; answers the user's end of it.
    ///
    /// # Errors
    /// The tunnel has ended, or something has run out.
    pub fn open(self: &Arc<Self>) -> io::Result<Socket> {
        let number = {
            let mut state = self.lock();
            state.next = state.next.wrapping_add(1);
            state.next
        };
        let user = self.add_lane(number)?;
        // The lane's own thread says that it is open: a stream that takes nothing holds back no one who has a deadline.
        self.start_lane(number, |tunnel, number, socket| {
            tunnel.send(number, Kind::Open, &[])?;
            tunnel.send_all(number, socket)
        })?;
        Ok(user)
    }

    /// Ends all of it.
    pub fn hang_up(&self) {
        self.finish(End::HungUp);
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.lock().end
    }

    /// Waits for the end.
    pub fn wait_for_end(&self) -> End {
        let mut state = self.lock();
        loop {
            if let Some(end) = state.end {
                return end;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add_lane(&self, number: u32) -> io::Result<Socket> {
        let (user, socket) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.lanes.len() >= LANES_MAX || state.lanes.contains_key(&number) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let lane = Lane {
            socket: Arc::new(socket),
            credit: WINDOW_BYTES,
            queue: VecDeque::new(),
            queued: 0,
            is_complete: false,
            is_reset: false,
            news: Arc::default(),
            workers: 2,
        };
        state.lanes.insert(number, lane);
        Ok(user)
    }

    /// Starts what works for a lane.
    fn start_lane(self: &Arc<Self>, number: u32, send: Work) -> io::Result<()> {
        for (name, work) in [("lane out", send), ("lane in", Self::deliver_all as Work)] {
            let Some(socket) = self.lock().lanes.get(&number).map(|lane| Arc::clone(&lane.socket)) else { break };
            let tunnel = Arc::clone(self);
            let thread = Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
            let started = thread.spawn(move || {
                // Whatever ends it, its user learns by the end of his socket.
                if let Err(error) = work(&tunnel, number, &socket) {
                    tracing::debug!(%error, number, "a lane ended");
                }
                tunnel.leave(number);
            });
            if let Err(error) = started {
                self.lock().lanes.remove(&number);
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave(&self, number: u32) {
        let mut state = self.lock();
        if let Some(lane) = state.lanes.get_mut(&number) {
            lane.workers -= 1;
            if lane.workers == 0 {
                state.lanes.remove(&number);
            }
        }
    }

    /// From the user to the stream.
    fn send_all(&self, number: u32, socket: &Socket) -> io::Result<()> {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let count = match (&mut &*socket).read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A user who is gone has nothing more to say.
                Err(_) => break,
            };
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let may = self.take_credit(number, rest.len())?;
                let (now, later) = rest.split_at(may);
                self.send(number, Kind::Data, now)?;
                rest = later;
            }
        }
        self.send(number, Kind::End, &[])
    }

    fn take_credit(&self, number: u32, wanted: usize) -> io::Result<usize> {
        let mut state = self.lock();
        loop {
            let lane = state.lanes.get_mut(&number).ok_or(io::ErrorKind::BrokenPipe)?;
            if lane.credit > 0 {
                let taken = lane.credit.min(wanted);
                lane.credit -= taken;
                return Ok(taken);
            }
            let news = Arc::clone(&lane.news);
            state = news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From the stream to the user.
    fn deliver_all(&self, number: u32, socket: &Socket) -> io::Result<()> {
        let (mut taken, mut is_gone) = (0, false);
        while let Some(bytes) = self.next_for(number) {
            // For one who is gone it is passed over.
            if !is_gone && (&mut &*socket).write_all(&bytes).is_err() {
                is_gone = true;
                self.send(number, Kind::Reset, &[])?;
            }
            taken += bytes.len();
            if taken >= CREDIT_BYTES {
                self.send(number, Kind::Credit, &(taken as u32).to_be_bytes())?;
                taken = 0;
            }
        }
        // One that is gone already needs no end.
        let _ = socket.shutdown(Shutdown::Write);
        Ok(())
    }

    /// What is to be delivered next; `None` at the end.
    fn next_for(&self, number: u32) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            let lane = state.lanes.get_mut(&number)?;
            if let Some(bytes) = lane.queue.pop_front() {
                lane.queued -= bytes.len();
                return Some(bytes);
            }
            if lane.is_complete {
                return None;
            }
            let news = Arc::clone(&lane.news);
            state = news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn send(&self, number: u32, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
        frame.extend_from_slice(&number.to_be_bytes());
        frame.extend_from_slice(&[kind as u8, 0, 0, 0]);
        frame.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(bytes);
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = match output.as_mut().filter(|_| !self.is_over.load(Ordering::Acquire)) {
            Some(output) => output.write_all(&frame).and_then(|()| output.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        drop(output);
        match sent {
            // Whoever is at the other end hears no more, whatever he still says.
            Err(_) => self.finish(End::Closed),
            Ok(()) => self.let_go(),
        }
        sent
    }

    /// Lets go of the stream when all is over, so that its other end sees it. Whoever has it at the moment does so afterwards.
    fn let_go(&self) {
        if self.is_over.load(Ordering::Acquire)
            && let Ok(mut output) = self.output.try_lock()
        {
            *output = None;
        }
    }

    fn read_all(self: &Arc<Self>, mut input: impl Read) -> End {
        let mut bytes = Vec::new();
        loop {
            let mut header = [0; HEADER_BYTES];
            if input.read_exact(&mut header).is_err() {
                return End::Closed;
            }
            let [n0, n1, n2, n3, kind, _, _, _, l0, l1, l2, l3] = header;
            let (number, len) = (u32::from_be_bytes([n0, n1, n2, n3]), u32::from_be_bytes([l0, l1, l2, l3]) as usize);
            let Some(kind) = Kind::of(kind).filter(|_| len <= FRAME_BYTES_MAX) else { return End::Broken };
            bytes.resize(len, 0);
            if input.read_exact(&mut bytes).is_err() {
                return End::Closed;
            }
            if !self.heard(number, kind, &bytes) {
                return End::Broken;
            }
        }
    }

    /// Takes a frame; `false` where it breaks the rules.
    fn heard(self: &Arc<Self>, number: u32, kind: Kind, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        state.heard = Some(Instant::now());
        if bytes.is_empty() == matches!(kind, Kind::Data | Kind::Credit) {
            return false;
        }
        match (kind, state.lanes.get_mut(&number)) {
            (Kind::Sign, _) => {}
            (Kind::Open, None) => {
                drop(state);
                let Some(take_lane) = &self.take_lane else { return false };
                match self.add_lane(number).and_then(|user| self.start_lane(number, Self::send_all).map(|()| user)) {
                    Ok(user) => take_lane(user),
                    Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => return false,
                    // Out of something for now: whoever opened it is told, and may try again.
                    Err(error) => {
                        tracing::debug!(%error, "a lane was not taken");
                        return self.send(number, Kind::End, &[]).is_ok();
                    }
                }
            }
            (Kind::Open, Some(_)) => return false,
            (Kind::Data, Some(lane)) => {
                lane.queued += bytes.len();
                // What was popped is on its way to the user, and is not credited yet: the window has room for both.
                if lane.queued > WINDOW_BYTES || (lane.is_complete && !lane.is_reset) {
                    return false;
                }
                // Small pieces cost no more memory than large ones.
                match lane.queue.back_mut().filter(|last| last.len() + bytes.len() <= FRAME_BYTES_MAX) {
                    Some(last) => last.extend_from_slice(bytes),
                    None => lane.queue.push_back(bytes.to_vec()),
                }
                lane.news.notify_all();
            }
            (Kind::End, Some(lane)) => {
                lane.is_complete = true;
                lane.news.notify_all();
            }
            (Kind::Credit, Some(lane)) => {
                let Ok(taken) = <[u8; 4]>::try_from(bytes) else { return false };
                if lane.is_reset {
                    // What was under way when it was reset is passed over there, and credited.
                    return true;
                }
                lane.credit += u32::from_be_bytes(taken) as usize;
                if lane.credit > WINDOW_BYTES {
                    return false;
                }
                lane.news.notify_all();
            }
            (Kind::Reset, Some(lane)) => {
                // One that is gone already needs no end.
                let _ = lane.socket.shutdown(Shutdown::Both);
                (lane.is_complete, lane.is_reset) = (true, true);
                lane.credit = WINDOW_BYTES;
                lane.news.notify_all();
            }
            // Of a lane that has ended here.
            (Kind::Data | Kind::End | Kind::Credit | Kind::Reset, None) => {}
        }
        true
    }

    /// Says now and then that this end is there, and looks whether the other one is.
    fn live(&self) {
        let mut state = self.lock();
        while state.end.is_none() {
            state = self.ended.wait_timeout(state, SIGN_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            let is_alone = state.heard.is_some_and(|heard| heard.elapsed() > SILENCE_MAX);
            if state.end.is_some() {
                break;
            }
            if is_alone {
                drop(state);
                return self.finish(End::Silence);
            }
            drop(state);
            // Where the stream is full, somebody is sending anyway.
            let sign = [[0; 4], [Kind::Sign as u8, 0, 0, 0], [0; 4]].concat();
            let is_lost = self.output.try_lock().is_ok_and(|mut output| {
                output.as_mut().is_some_and(|output| output.write_all(&sign).and_then(|()| output.flush()).is_err())
            });
            if is_lost {
                return self.finish(End::Closed);
            }
            self.let_go();
            state = self.lock();
        }
    }

    fn finish(&self, end: End) {
        self.is_over.store(true, Ordering::Release);
        let mut state = self.lock();
        state.end.get_or_insert(end);
        for lane in state.lanes.values() {
            // One that is gone already needs no end.
            let _ = lane.socket.shutdown(Shutdown::Both);
            lane.news.notify_all();
        }
        state.lanes.clear();
        self.ended.notify_all();
        drop(state);
        self.let_go();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("end", &self.end()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
