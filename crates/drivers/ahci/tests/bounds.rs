//! That everything ends, in virtual time: whatever a device does, however often.

mod support;

use outboard_block::{BlockDriver, BlockError, Durability, FailedReason, UnitState};
use std::time::Duration;
use support::model::{Disk, Fault, ModelDevice};
use support::model_bench::{ALWAYS, ModelBench, UNCORRECTABLE, disk_with, good};

#[test]
fn a_command_that_hangs_is_overdue_however_busy_the_disk_is() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)])]);
    bench.submit(0, 16, 1);
    let began = bench.now;
    let mut lba = 1000;
    while bench.device.model().ports[0].resets == 0 {
        bench.submit(0, lba, 1);
        bench.driver.kick(bench.now);
        bench.turn();
        bench.now = bench.now + Duration::from_millis(20);
        lba += 1;
        assert!(bench.now.since(began) < Duration::from_secs(31), "it is overdue after 30 s");
    }
    bench.finish().into_iter().for_each(good);
    let mut missed = None;
    bench.driver.counters(outboard_block::UnitId(0), &mut |name, count| {
        missed = missed.or((name == "missed-interrupts").then_some(count));
    });
    assert_eq!(missed, Some(0), "looking now and then is not missing interrupts");
}

#[test]
fn commands_end_though_the_hba_shows_one_that_was_never_issued() {
    let mut bench = ModelBench::new(vec![disk_with(&[]), Some(Disk::new(512))]);
    bench.device.model().ports[0].stray = true;
    bench.submit(1, 0, 1);
    (1..9).for_each(|lba| bench.submit(0, lba, 1));
    // One at a time, none of them needs the register with the senseless bit.
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.model().ports[0].resets, 1);
    assert_eq!(bench.device.model().resets, 1, "the other port goes on");
}

#[test]
fn a_disk_that_is_stuck_with_one_command_loses_no_other() {
    let mut disk = disk_with(&[(16, Fault::Hang, ALWAYS)]);
    disk.as_mut().unwrap().one_at_a_time = true;
    let mut bench = ModelBench::new(vec![disk]);
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            16 => assert_eq!(completion.result, Err(BlockError::Timeout)),
            _ => good(completion),
        }
    }
}

#[test]
fn a_cable_that_never_works_fails_every_command_and_nothing_else() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Fatal, ALWAYS)])]);
    for _ in 0..100 {
        bench.submit(0, 16, 1);
        assert_eq!(bench.finish()[0].result, Err(BlockError::Transport));
    }
    assert_eq!(bench.state(0), UnitState::Ready);
    assert_eq!(bench.device.model().resets, 1, "the disk can be identified every time");
}

#[test]
fn the_innocent_are_not_blamed_among_many_bad_sectors() {
    let bad: Vec<_> = (1..1000).map(|sector| (sector, UNCORRECTABLE, ALWAYS)).collect();
    let mut bench = ModelBench::new(vec![disk_with(&bad)]);
    // The good sector is in the last slot, behind a queue that is always full.
    (1..32).chain([1000]).for_each(|lba| bench.submit(0, lba, 1));
    bench.driver.kick(bench.now);
    let mut lba = 32;
    while !bench.done.iter().any(|completion| completion.tag.0 == 1000) {
        bench.turn();
        bench.now = bench.now + Duration::from_millis(1);
        while lba < 1000 && bench.submitted - bench.done.len() < 32 {
            bench.submit(0, lba, 1);
            lba += 1;
        }
        bench.driver.kick(bench.now);
    }
    for completion in bench.finish() {
        match completion.tag.0 {
            1000 => good(completion),
            lba => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(lba) })),
        }
    }
}

#[test]
fn a_log_that_cannot_be_read_is_noticed_at_once() {
    let mut disk = disk_with(&[(83, UNCORRECTABLE, ALWAYS)]);
    disk.as_mut().unwrap().log_fails = true;
    let mut bench = ModelBench::new(vec![disk]);
    let began = bench.now;
    for completion in bench.read_batch(0) {
        match completion.tag.0 {
            80 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(83) })),
            _ => good(completion),
        }
    }
    assert!(bench.now.since(began) < Duration::from_secs(5), "{:#?}", bench.events);
}

#[test]
fn an_old_error_is_not_taken_for_a_new_one() {
    let faults = [(83, UNCORRECTABLE, ALWAYS), (84, Fault::Hang, 1)];
    let mut bench = ModelBench::new(vec![disk_with(&faults)]);
    bench.submit(0, 83, 1);
    assert_eq!(bench.finish()[0].result, Err(BlockError::Media { lba: Some(83) }));
    // It takes its time, so that the driver looks at the port before it has ended.
    bench.submit(0, 84, 1);
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.happened("a queued command failed"), 1, "{:#?}", bench.events);
}

#[test]
fn a_disk_that_is_away_for_a_while_comes_back() {
    for seconds in [1, 5, 9] {
        let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)])]);
        bench.device.model().ports[0].deaf = true;
        bench.submit(0, 16, 1);
        bench.driver.kick(bench.now);
        bench.run_until(|bench| bench.device.model().ports[0].resets > 0);
        let away = bench.now + Duration::from_secs(seconds);
        bench.run_until(|bench| bench.now.reached(away));
        bench.device.model().come_back(0);
        bench.finish().into_iter().for_each(good);
        assert_eq!(bench.state(0), UnitState::Ready);
    }
}

#[test]
fn a_disk_that_announces_itself_is_identified_before_it_is_used_again() {
    for swapped in [false, true] {
        let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
        let mut other = Disk::new(512);
        other.serial = if swapped { "OTHER" } else { other.serial };
        {
            let mut model = bench.device.model();
            model.ports[0].disk = Some(other.clone());
            model.brown_out(0);
        }
        bench.submit_write(0, 9, 0x5a, Durability::Cached);
        let result = bench.finish()[0].result;
        assert_eq!(result, if swapped { Err(BlockError::Gone) } else { Ok(()) });
        let model = bench.device.model();
        let content = &model.ports[0].disk.as_ref().unwrap().content;
        assert_eq!(content == &other.content, swapped, "nothing is written to another disk");
    }
}

#[test]
fn a_flush_says_so_if_the_cache_may_be_lost() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    let cycle = |bench: &mut ModelBench| {
        bench.device.model().brown_out(0);
        bench.finish();
        bench.submit_flush(0);
        bench.finish()[0].result
    };
    assert_eq!(cycle(&mut bench), Ok(()), "there was nothing to lose");
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish().pop().unwrap().result.unwrap();
    assert_eq!(cycle(&mut bench), Err(BlockError::CacheLost));
    assert_eq!(cycle(&mut bench), Ok(()), "it is said once");
    // A write that was flushed, and one that is durable by itself.
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish();
    bench.submit_flush(0);
    assert_eq!(bench.finish()[0].result, Ok(()));
    bench.submit_write(0, 10, 0x5a, Durability::Durable);
    assert_eq!(bench.finish()[0].result, Ok(()));
    assert_eq!(cycle(&mut bench), Ok(()));
}

#[test]
fn a_reset_for_another_port_does_not_hide_that_a_disk_was_cut_off() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)]), Some(Disk::new(512))]);
    bench.device.model().ports[0].stuck = true;
    bench.submit_write(1, 9, 0x5a, Durability::Cached);
    bench.finish().pop().unwrap().result.unwrap();
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.happened("timed out") > 0);
    // Before the second port's interrupt is served, the first one's engine has had its time.
    bench.device.model().brown_out(1);
    bench.now = bench.now + Duration::from_secs(1);
    bench.driver.poll(bench.now, &mut |_| ());
    bench.finish().into_iter().for_each(good);
    assert_eq!(bench.device.model().resets, 2);
    bench.submit_flush(1);
    assert_eq!(bench.finish()[0].result, Err(BlockError::CacheLost));
}

#[test]
fn a_disk_that_was_lost_for_a_while_during_a_reset_may_have_lost_its_cache() {
    for lost in [false, true] {
        let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)])]);
        bench.submit_write(0, 9, 0x5a, Durability::Cached);
        bench.finish().pop().unwrap().result.unwrap();
        bench.submit(0, 16, 1);
        bench.driver.kick(bench.now);
        bench.run_until(|bench| bench.happened("port reset") > 0);
        if lost {
            bench.device.model().ports[0].deaf = true;
            let back = bench.now + Duration::from_secs(1);
            bench.run_until(|bench| bench.now.reached(back));
            bench.device.model().come_back(0);
        }
        bench.finish().into_iter().for_each(good);
        bench.submit_flush(0);
        let expected = if lost { Err(BlockError::CacheLost) } else { Ok(()) };
        assert_eq!(bench.finish()[0].result, expected);
    }
}

#[test]
fn an_engine_that_does_not_stop_does_not_hide_that_its_disk_was_cut_off() {
    let mut bench = ModelBench::new(vec![disk_with(&[(16, Fault::Hang, 1)])]);
    bench.device.model().ports[0].stuck = true;
    bench.submit_write(0, 9, 0x5a, Durability::Cached);
    bench.finish().pop().unwrap().result.unwrap();
    bench.submit(0, 16, 1);
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.happened("timed out") > 0);
    bench.device.model().brown_out(0);
    bench.finish().into_iter().for_each(good);
    bench.submit_flush(0);
    assert_eq!(bench.finish()[0].result, Err(BlockError::CacheLost));
}

#[test]
fn a_disk_that_never_becomes_ready_is_given_up_and_the_others_go_on() {
    let device = ModelDevice::new(vec![Some(Disk::new(512)), Some(Disk::new(512))]);
    device.model().ports[0].busy = true;
    let mut bench = ModelBench::starting(device);
    bench.run_until(|bench| bench.state(1) == UnitState::Ready);
    let began = bench.now;
    let given_up = UnitState::Failed(FailedReason::GivenUp);
    bench.run_until(|bench| bench.state(0) == given_up);
    assert!(bench.now.since(began) < Duration::from_secs(125));
    assert_eq!(bench.device.model().resets, 1, "only the one at start-up");
    bench.submit(1, 0, 1);
    bench.finish().into_iter().for_each(good);
}

#[test]
fn a_durable_write_is_done_again_if_its_flush_was_cut_off() {
    let mut bench = ModelBench::new(vec![Some(Disk::new(512))]);
    bench.submit_write(0, 9, 0x5a, Durability::Durable);
    bench.driver.kick(bench.now);
    // The write has ended, and the flush is issued.
    bench.device.model().run();
    bench.driver.interrupt(0);
    let done = &mut bench.done;
    bench.driver.poll(bench.now, &mut |completion| done.push(completion));
    assert!(bench.done.is_empty());
    bench.device.model().brown_out(0);
    assert_eq!(bench.finish()[0].result, Ok(()));
    bench.device.model().brown_out(0);
    let model = bench.device.model();
    let content = &model.ports[0].disk.as_ref().unwrap().content;
    assert_eq!(content[9 * 512..10 * 512], [0x5a; 512]);
}
