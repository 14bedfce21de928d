package io.qnbd.image;

import java.util.List;

/**
 * What a repair did.
 *
 * @param before what a check found first
 * @param repairs one sentence for each of the first {@value CheckReport#FINDINGS_MAX} changes that
 *     touch a guest's data or its tables
 * @param after what a check finds now
 */
public record RepairReport(CheckReport before, List<String> repairs, CheckReport after) {
  public RepairReport {
    repairs = List.copyOf(repairs);
  }

  /** Corruptions that are gone. */
  public long corruptionsFixed() {
    return Math.max(0, before.corruptions() - after.corruptions());
  }

  /** Leaks that are gone. */
  public long leaksFixed() {
    return Math.max(0, before.leaks() - after.leaks());
  }
}
