// The retry policy for stock clients, as clients/service-config.json has it.

const service = "taskyard.v1.TaskService";

/** For the option `grpc.service_config` of a stock client: what to try again, and how often. */
export const serviceConfig: string = JSON.stringify({
  methodConfig: [
    {
      name: [
        { service, method: "Submit" },
        { service, method: "SubmitBatch" },
        { service, method: "SubmitAndWatch" },
        { service, method: "WatchEvents" },
        { service, method: "GetTask" },
        { service, method: "ListTasks" },
        { service, method: "WaitTask" },
        { service, method: "CancelTask" },
      ],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "5s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
  retryThrottling: { maxTokens: 100, tokenRatio: 0.5 },
});
