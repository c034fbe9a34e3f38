//! How long the small parts take.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, criterion_group, criterion_main};

fn parts(criterion: &mut Criterion) {
    for part in outboard_bench::parts() {
        let mut run = (part.make)();
        criterion.bench_function(part.name, |bencher| bencher.iter(&mut run));
    }
}

criterion_group!(benches, parts);
criterion_main!(benches);
