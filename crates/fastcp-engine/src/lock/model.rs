//! Threads whose turns a seed decides.
//!
//! Of the threads of a model one runs at a time. At each lock that it takes it may have to let another run, and
//! who that is follows from the seed: so a seed stands for one interleaving, which can be had again. Those who wait
//! for news are left out until it is told. Where nobody can run and somebody has not ended, the model has found
//! those who wait for what will not come. Waits with a time limit may end by it while others can run: nobody may
//! depend on that.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

/// So many turns are far more than any model needs: it turns in a circle.
const TURNS_MAX: usize = 200_000;

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    News,
    NewsOrTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thread {
    Ready,
    Waiting { news: usize, limit: Limit },
    Ended,
}

/// What a model that does not come to its end is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// These threads wait, and nobody is left who could tell them anything.
    Waiting(Vec<&'static str>),
    /// Turns are taken and nothing comes of it.
    InCircles,
}

struct Model {
    state: Mutex<State>,
    turns: Vec<Condvar>,
}

struct State {
    threads: Vec<Thread>,
    running: usize,
    random: Random,
    turns: usize,
    stuck: Option<Stuck>,
    names: Vec<&'static str>,
}

/// Small, seeded, and good enough to shuffle with (xorshift64*).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

thread_local! {
    static ME: RefCell<Option<(Arc<Model>, usize)>> = const { RefCell::new(None) };
}

/// What unwinds the threads of a model that is stuck.
struct Unwound;

/// A named thread of a model.
pub(crate) type Actor<'a> = (&'static str, Box<dyn FnOnce() + Send + 'a>);

/// Runs these threads in the order that `seed` stands for, to their end.
pub(crate) fn run(seed: u64, actors: Vec<Actor<'_>>) -> Result<(), Stuck> {
    let names: Vec<_> = actors.iter().map(|(name, _)| *name).collect();
    let state = State {
        threads: vec![Thread::Ready; actors.len()],
        running: 0,
        random: Random::new(seed),
        turns: 0,
        stuck: None,
        names,
    };
    let model = Arc::new(Model { state: Mutex::new(state), turns: actors.iter().map(|_| Condvar::new()).collect() });
    let panics = Mutex::new(Vec::<Box<dyn Any + Send>>::new());
    std::thread::scope(|threads| {
        for (me, (_, actor)) in actors.into_iter().enumerate() {
            let (model, panics) = (Arc::clone(&model), &panics);
            threads.spawn(move || {
                ME.set(Some((Arc::clone(&model), me)));
                let result = catch_unwind(AssertUnwindSafe(|| {
                    model.wait_for_turn(me, model.lock());
                    actor();
                }));
                ME.set(None);
                if let Err(panic) = result
                    && !panic.is::<Unwound>()
                {
                    panics.lock().unwrap_or_else(PoisonError::into_inner).push(panic);
                    model.lock().stuck.get_or_insert(Stuck::InCircles);
                }
                model.end(me);
            });
        }
    });
    if let Some(panic) = panics.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
        resume_unwind(panic);
    }
    let stuck = model.lock().stuck.clone();
    stuck.map_or(Ok(()), Err)
}

/// Whether this thread is one of a model that is not being unwound.
pub(super) fn is_on() -> bool {
    !std::thread::panicking() && ME.with_borrow(Option::is_some)
}

fn with_me<T>(act: impl FnOnce(&Model, usize) -> T) -> Option<T> {
    if std::thread::panicking() {
        return None;
    }
    let me = ME.with_borrow(Clone::clone);
    me.map(|(model, me)| act(&model, me))
}

/// Takes a mutex after others have had their turns; `None` outside of models.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    with_me(|model, me| {
        loop {
            model.turn(me, Thread::Ready);
            match mutex.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    })
}

pub(super) fn wait(news: usize, limit: Limit) {
    with_me(|model, me| model.turn(me, Thread::Waiting { news, limit }));
}

/// Somebody who waits for this may run again. `false` outside of models.
pub(super) fn tell_one(news: usize) -> bool {
    with_me(|model, _| {
        let mut state = model.lock();
        let waiting: Vec<usize> = state.waiting_for(news).collect();
        if !waiting.is_empty() {
            let chosen = waiting[state.random.below(waiting.len())];
            state.threads[chosen] = Thread::Ready;
        }
    })
    .is_some()
}

/// All who wait for this may run again. `false` outside of models.
pub(super) fn tell_all(news: usize) -> bool {
    with_me(|model, _| {
        let mut state = model.lock();
        let waiting: Vec<usize> = state.waiting_for(news).collect();
        waiting.into_iter().for_each(|one| state.threads[one] = Thread::Ready);
    })
    .is_some()
}

impl State {
    fn waiting_for(&self, wanted: usize) -> impl Iterator<Item = usize> {
        let waits = move |thread: &Thread| matches!(thread, Thread::Waiting { news, .. } if *news == wanted);
        self.threads.iter().enumerate().filter(move |(_, thread)| waits(thread)).map(|(at, _)| at)
    }

    /// Who runs next; `None` where all have ended, or are stuck.
    fn choose(&mut self) -> Option<usize> {
        let all_of = |state: &Self, wanted: fn(&Thread) -> bool| -> Vec<usize> {
            let all = state.threads.iter().enumerate();
            all.filter(|(_, thread)| wanted(thread)).map(|(at, _)| at).collect()
        };
        let ready = all_of(self, |thread| *thread == Thread::Ready);
        let timed = all_of(self, |thread| matches!(thread, Thread::Waiting { limit: Limit::NewsOrTime, .. }));
        if ready.is_empty() {
            if self.stuck.is_none() && self.threads.iter().any(|thread| *thread != Thread::Ended) {
                let who = self.names.iter().zip(&self.threads).filter(|(_, thread)| **thread != Thread::Ended);
                self.stuck = Some(Stuck::Waiting(who.map(|(name, _)| *name).collect()));
            }
            return None;
        }
        let from = if !timed.is_empty() && self.random.once_in(20) { timed } else { ready };
        Some(from[self.random.below(from.len())])
    }
}

impl Model {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets somebody run, perhaps the same thread again; comes back when it is this thread's turn.
    fn turn(&self, me: usize, thread: Thread) {
        let mut state = self.lock();
        state.threads[me] = thread;
        state.turns += 1;
        if state.turns > TURNS_MAX {
            state.stuck.get_or_insert(Stuck::InCircles);
        }
        self.pass_on(&mut state);
        self.wait_for_turn(me, state);
    }

    fn pass_on(&self, state: &mut State) {
        match state.choose() {
            Some(next) => {
                state.running = next;
                self.turns[next].notify_one();
            }
            None => self.turns.iter().for_each(Condvar::notify_one),
        }
        if state.stuck.is_some() {
            self.turns.iter().for_each(Condvar::notify_one);
        }
    }

    fn wait_for_turn(&self, me: usize, mut state: MutexGuard<'_, State>) {
        while state.running != me && state.stuck.is_none() {
            state = self.turns[me].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stuck.is_some() {
            drop(state);
            // No panic that a hook would report.
            resume_unwind(Box::new(Unwound));
        }
        state.threads[me] = Thread::Ready;
    }

    fn end(&self, me: usize) {
        let mut state = self.lock();
        state.threads[me] = Thread::Ended;
        if state.stuck.is_some() || state.running == me {
            self.pass_on(&mut state);
        }
    }
}
