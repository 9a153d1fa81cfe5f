//! Metrics with labels whose children all exist from the start: a count is one atomic addition,
//! and the number of series never changes.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::label::{Label, RspDirection, RspMode, RspType};

const NAMES: &str = "names and labels are constants, each used once";

/// A registry and the ways to fill it.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

impl Registrar<'_> {
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)).expect(NAMES))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)).expect(NAMES))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(opts(name, help), labels).expect(NAMES))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(opts(name, help), labels).expect(NAMES))
    }

    pub(super) fn family<L: Label>(&self, name: &str, help: &str, label: &str) -> Family<L> {
        let vec = self.counters(name, help, &[label]);
        Family {
            children: L::ALL.iter().map(|l| vec.with_label_values(&[l.name()])).collect(),
            label: PhantomData,
        }
    }

    /// A counter for each pair of labels that `exists`.
    pub(super) fn table<A: Label, B: Label>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
        exists: impl Fn(A, B) -> bool,
    ) -> Table<A, B> {
        let vec = self.counters(name, help, &labels);
        let mut children = Vec::with_capacity(A::ALL.len() * B::ALL.len());
        for a in A::ALL {
            for b in B::ALL {
                let child = || vec.with_label_values(&[a.name(), b.name()]);
                children.push(exists(*a, *b).then(child));
            }
        }
        Table { children, labels: PhantomData }
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets_secs: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets_secs.to_vec());
        self.add(Histogram::with_opts(opts).expect(NAMES))
    }

    fn add<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect(NAMES);
        collector
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("simcast")
}

/// A counter for each value of one label.
pub(super) struct Family<L> {
    children: Vec<IntCounter>,
    label: PhantomData<L>,
}

impl<L: Label> Family<L> {
    pub(super) fn of(&self, label: L) -> &IntCounter {
        &self.children[label.index()]
    }
}

/// A counter for each pair of values of two labels, but for those that cannot happen.
pub(super) struct Table<A, B> {
    children: Vec<Option<IntCounter>>,
    labels: PhantomData<(A, B)>,
}

impl Table<RspType, RspMode> {
    /// The children of one direction of a vector labelled `type`, `mode`, `direction`.
    pub(super) fn one_way(vec: &IntCounterVec, direction: RspDirection) -> Self {
        let child = |kind: RspType, mode: RspMode| {
            let labels = [kind.name(), mode.name(), direction.name()];
            kind.goes(mode, direction).then(|| vec.with_label_values(&labels))
        };
        let modes = |kind: &RspType| RspMode::ALL.iter().map(|mode| child(*kind, *mode)).collect();
        let children: Vec<Vec<_>> = RspType::ALL.iter().map(modes).collect();
        Self { children: children.into_iter().flatten().collect(), labels: PhantomData }
    }
}

impl<A: Label, B: Label> Table<A, B> {
    /// The count; none for a pair that cannot happen.
    pub(super) fn get(&self, a: A, b: B) -> u64 {
        let child = &self.children[a.index() * B::ALL.len() + b.index()];
        child.as_ref().map_or(0, IntCounter::get)
    }

    /// Counts so many; nothing for a pair that cannot happen.
    pub(super) fn add(&self, a: A, b: B, count: u64) {
        if let Some(child) = &self.children[a.index() * B::ALL.len() + b.index()] {
            child.inc_by(count);
        }
    }
}

/// Adds a duration to a histogram of seconds.
pub(super) fn observe(histogram: &Histogram, took: Duration) {
    histogram.observe(took.as_secs_f64());
}
