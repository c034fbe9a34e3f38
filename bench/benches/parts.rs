//! How long the small parts take.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, criterion_group, criterion_main};

fn parts(criterion: &mut Criterion) {
    // The clock cannot leave out what is not marked.
    for part in outboard_bench::parts().into_iter().filter(|part| !part.is_marked) {
        let mut run = (part.make)();
        criterion.bench_function(part.name, |bencher| bencher.iter(&mut run));
    }
}

criterion_group!(benches, parts);
criterion_main!(benches);
