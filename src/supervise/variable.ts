/**
 * Names the process id of `beacon supervise` to the serving process, which ends once that process
 * has.
 */
export const SUPERVISOR_VARIABLE = "BEACON_SUPERVISOR_PID";
