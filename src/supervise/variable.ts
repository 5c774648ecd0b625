/** Process id of `beacon supervise`, with which the serving process ends. */
export const SUPERVISOR_VARIABLE = "BEACON_SUPERVISOR_PID";
